#include "src/evaluate/likelihoods.h"

#include "src/base/error.h"

#include <algorithm>
#include <cmath>

namespace espalier {

namespace {

/// How many continuations the passes before each rank's share have, and all.
std::vector<std::size_t> offsets_of_ranks(std::span<const PackedSequences> passes, const Communicator& ranks) {
    std::vector<std::size_t> offsets = {0};
    const auto count = static_cast<std::size_t>(ranks.size());
    for (std::size_t rank = 0; rank < count; ++rank) {
        const IndexRange share = part_of(passes.size(), count, rank);
        std::size_t continuations = 0;
        for (std::size_t pass = share.begin; pass < share.end; ++pass) {
            continuations += passes[pass].continuations.size();
        }
        offsets.push_back(offsets.back() + continuations);
    }
    return offsets;
}

}  // namespace

std::vector<Likelihood> measure_likelihoods(const EvaluationContext& c, std::span<const PackedSequences> passes) {
    LikelihoodPass pass(c.device, c.group, c.source, passes, c.hidden_states);
    pass.run_blocks(c.progress);
    const std::vector<Likelihood> mine = pass.run_head(c.progress);
    const std::vector<std::size_t> offsets = offsets_of_ranks(passes, c.control);
    std::vector<Likelihood> all(offsets.back());
    std::ranges::copy(mine,
                      all.begin() + static_cast<std::ptrdiff_t>(offsets[static_cast<std::size_t>(c.control.rank())]));
    c.control.all_gather(std::span(all), offsets);
    for (const Likelihood& one : all) {
        if (!std::isfinite(one.logarithm)) throw NonFiniteError("the model's logits are not finite on these tokens");
    }
    return all;
}

}  // namespace espalier
