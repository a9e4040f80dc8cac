#include "src/evaluate/perplexity.h"

#include "src/base/error.h"

#include <algorithm>
#include <cmath>
#include <string>

namespace espalier {

std::vector<PackedSequences> windows_of_text(const ModelConfig& config, std::span<const std::int32_t> tokens,
                                             std::size_t sequence_length, std::size_t rows) {
    if (sequence_length < 2) throw InputError("--sequence-length must be at least 2 to predict a next token");
    const std::size_t windows = tokens.size() / sequence_length;
    if (windows == 0) {
        throw InputError("the text holds " + std::to_string(tokens.size()) + " tokens, fewer than one window of " +
                         std::to_string(sequence_length));
    }
    config.check_sequence_length(sequence_length);
    const std::size_t at_once = std::max<std::size_t>(1, rows / sequence_length);
    std::vector<PackedSequences> passes;
    for (std::size_t window = 0; window < windows; ++window) {
        if (window % at_once == 0) passes.emplace_back();
        PackedSequences& pass = passes.back();
        const auto ids = tokens.subspan(window * sequence_length, sequence_length);
        for (std::size_t i = 0; i + 1 < sequence_length; ++i) {
            pass.rows.push_back(static_cast<std::uint32_t>(pass.ids.size() + i));
            pass.targets.push_back(ids[i + 1]);
        }
        pass.ids.insert(pass.ids.end(), ids.begin(), ids.end());
        pass.segments.push_back({sequence_length});
        pass.continuations.push_back(sequence_length - 1);
    }
    return passes;
}

Perplexity perplexity_of(std::span<const Likelihood> windows, std::size_t sequence_length) {
    Perplexity result;
    result.windows = windows.size();
    for (const Likelihood& window : windows) result.loss -= window.logarithm / static_cast<double>(sequence_length - 1);
    result.loss /= static_cast<double>(result.windows);
    result.perplexity = std::exp(result.loss);
    return result;
}

}  // namespace espalier
