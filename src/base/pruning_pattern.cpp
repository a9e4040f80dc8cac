#include "src/base/pruning_pattern.h"

#include "src/base/error.h"

#include <charconv>
#include <cmath>

namespace espalier {

std::size_t PruningPattern::removed_per_row(std::size_t columns) const {
    if (structured()) return columns / group * (group - keep);
    // The sparsity is a decimal number: 0.29 of 100 is 29, though the nearest doubles multiply to 28.999999999999996.
    constexpr double rounding = 1e-9;
    return static_cast<std::size_t>(std::floor(static_cast<double>(columns) * sparsity + rounding));
}

std::string PruningPattern::name() const {
    return structured() ? std::to_string(keep) + ":" + std::to_string(group) : "unstructured";
}

PruningPattern PruningPattern::parse(std::string_view text, double sparsity) {
    if (text == "unstructured") {
        if (!(sparsity > 0 && sparsity < 1)) {
            throw InputError("--sparsity must lie between 0 and 1 (exclusive), not " + std::to_string(sparsity));
        }
        return {0, 0, sparsity};
    }
    PruningPattern pattern;
    const char* const end = text.data() + text.size();
    const auto keep = std::from_chars(text.data(), end, pattern.keep);
    const bool colon = keep.ec == std::errc() && keep.ptr != end && *keep.ptr == ':';
    const auto group = colon ? std::from_chars(keep.ptr + 1, end, pattern.group) : keep;
    if (!colon || group.ec != std::errc() || group.ptr != end || pattern.keep == 0 || pattern.keep >= pattern.group ||
        pattern.group > 65536) {
        throw InputError("--pattern '" + std::string(text) +
                         "' is neither 'unstructured' nor N:M with 0 < N < M (2:4 keeps 2 of every 4 inputs)");
    }
    pattern.sparsity = static_cast<double>(pattern.group - pattern.keep) / static_cast<double>(pattern.group);
    return pattern;
}

}  // namespace espalier
