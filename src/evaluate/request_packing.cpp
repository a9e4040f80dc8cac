#include "src/evaluate/request_packing.h"

#include "src/base/error.h"

#include <algorithm>
#include <string>
#include <tuple>

namespace espalier {

namespace {

/// Requests r with first <= r < first + count that have one context, of which the first `cut` tokens are left out. The
/// last token of a continuation is predicted, not read.
struct SharedContext {
    std::size_t first, count, cut;
    std::size_t rows;         ///< of the context and all continuations
    std::size_t predictions;  ///< of all continuations
    std::size_t longest;      ///< sequence of them
};

class ContextFinder {
  public:
    ContextFinder(const RequestTable& requests, const ModelConfig& config, std::size_t rows_of_pass)
        : requests_(requests),
          longest_(config.longest_sequence()),
          longest_short_(config.longest_short_sequence()),
          rows_of_pass_(rows_of_pass) {}

    std::vector<SharedContext> find() {
        for (std::size_t r = 0; r < requests_.size(); ++r) {
            const std::size_t predicted = requests_.continuation(r).size(), own = predicted - 1;
            if (own >= longest_) {
                throw InputError("request " + std::to_string(r) + " has a continuation of " +
                                 std::to_string(predicted) + " tokens; the model takes " + std::to_string(longest_));
            }
            const std::size_t tokens = requests_.context(r).size() + own;
            const std::size_t cut = tokens > longest_ ? tokens - longest_ : 0;
            const SharedContext alone = {r, 1, cut, tokens - cut, predicted, tokens - cut};
            if (!shared_.empty() && joins(shared_.back(), alone, own)) {
                SharedContext& joined = shared_.back();
                ++joined.count;
                joined.rows += own;
                joined.predictions += predicted;
                joined.longest = std::max(joined.longest, alone.longest);
            } else {
                shared_.push_back(alone);
            }
        }
        return std::move(shared_);
    }

  private:
    /// Whether one more request is computed behind a context: the same one, with one table of rotary frequencies for
    /// all that follows on it, and while a pass does not grow far beyond its size.
    bool joins(const SharedContext& shared, const SharedContext& alone, std::size_t own) const {
        const auto context = requests_.context(alone.first);
        const std::size_t kept = context.size() - alone.cut, most = std::max(rows_of_pass_, 2 * kept);
        const bool is_long = kept > longest_short_;
        return alone.cut == shared.cut && shared.rows + own <= most && shared.predictions + alone.predictions <= most &&
               (alone.longest > longest_short_) == is_long && (shared.longest > longest_short_) == is_long &&
               std::ranges::equal(context, requests_.context(shared.first));
    }

    const RequestTable& requests_;
    std::size_t longest_, longest_short_, rows_of_pass_;
    std::vector<SharedContext> shared_;
};

void append(const RequestTable& requests, const SharedContext& shared, PackedSequences& pass) {
    const auto context = requests.context(shared.first).subspan(shared.cut);
    const std::size_t begin = pass.ids.size();
    pass.ids.insert(pass.ids.end(), context.begin(), context.end());
    pass.segments.push_back({context.size()});
    for (std::size_t r = shared.first; r < shared.first + shared.count; ++r) {
        const auto continuation = requests.continuation(r);
        const std::size_t own = continuation.size() - 1, first = pass.ids.size();
        pass.ids.insert(pass.ids.end(), continuation.begin(), continuation.end() - 1);
        if (shared.count == 1)
            pass.segments.back().rows += own;
        else if (own > 0)
            pass.segments.push_back({own, begin, context.size()});
        pass.rows.push_back(static_cast<std::uint32_t>(begin + context.size() - 1));
        for (std::size_t i = 0; i < own; ++i) pass.rows.push_back(static_cast<std::uint32_t>(first + i));
        pass.targets.insert(pass.targets.end(), continuation.begin(), continuation.end());
        pass.continuations.push_back(continuation.size());
    }
}

}  // namespace

RequestPacking pack_requests(const RequestTable& requests, const ModelConfig& config, const PackingLimits& limits) {
    std::vector<SharedContext> all = ContextFinder(requests, config, limits.rows_of_pass).find();
    const auto is_long = [&](const SharedContext& one) { return one.longest > config.longest_short_sequence(); };
    const auto is_large = [&](const SharedContext& one) { return one.rows > limits.rows_of_pass; };
    std::ranges::stable_sort(
        all, {}, [&](const SharedContext& one) { return std::tuple(is_long(one), is_large(one), one.longest); });
    RequestPacking packing;
    const SharedContext* before = nullptr;
    for (const SharedContext& one : all) {
        const bool other_kind =
            before == nullptr || is_long(one) != is_long(*before) || is_large(one) != is_large(*before);
        if (other_kind || packing.parts.back().back().ids.size() + one.rows > limits.rows_of_pass) {
            const std::size_t slot = std::max(one.rows, limits.rows_of_pass);  // what a pass's states take
            if (other_kind || (packing.parts.back().size() + 1) * slot > limits.rows_of_part) {
                packing.parts.emplace_back();
            }
            packing.parts.back().emplace_back();
        }
        append(requests, one, packing.parts.back().back());
        before = &one;
        packing.cut += one.cut > 0 ? one.count : 0;
        for (std::size_t i = 0; i < one.count; ++i) packing.order.push_back(one.first + i);
    }
    return packing;
}

}  // namespace espalier
