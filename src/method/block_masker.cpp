#include "src/method/block_masker.h"

#include "mpi/tensor_collectives.h"
#include "src/base/error.h"

#include <algorithm>
#include <string>
#include <vector>

namespace espalier {

void refuse_unusable_scores(const GroupContext& context, const DeviceCounters& unusable, std::size_t block) {
    const std::vector<std::uint64_t> read = unusable.read();
    std::array<std::uint64_t, linear_layers> mine{};
    std::copy(read.begin(), read.end(), mine.begin());
    const auto all = context.control.all_gather_value(mine);
    for (std::size_t layer = 0; layer < linear_layers; ++layer) {
        std::uint64_t count = 0;
        for (const auto& rank : all) count += rank[layer];
        if (count == 0) continue;
        throw NonFiniteError(
            std::to_string(count) + " scores of tensor '" +
            checkpoint_name(block, context.layout.matrices()[layer].name) +
            ".weight' are infinite or not a number; a smaller learning rate, a smaller --alpha or other "
            "calibration tokens may help");
    }
}

BlockMasker::BlockMasker(const GroupContext& context, const PruneOptions& options, const WeightPartition& partition,
                         const PartTensor& gradient)
    : context_(context), options_(options), partition_(partition), gradient_(gradient) {}

ScoreTerms BlockMasker::terms_for(const InputNorms& norms, const RowSlice& slice) const {
    ScoreTerms terms;
    if (options_.method == Method::magnitude) return terms;
    terms.input_norms = norms.of(input_of(slice.layer));
    if (!uses_regional_gradient(options_.method)) return terms;
    terms.gradient = gradient_.slice(slice, context_.layout.matrix(slice.layer).columns);
    terms.alpha = static_cast<float>(options_.alpha);
    return terms;
}

void BlockMasker::mask_part(const InputNorms& norms, std::size_t block, const RowsOf& weights,
                            BlockTensor& mask) const {
    const DeviceCounters unusable(context_.device, linear_layers);
    for (const RowSlice& slice : partition_.slices_of(context_.me())) {
        context_.device.score_and_mask(terms_for(norms, slice), options_.pattern, weights(slice),
                                       mask.matrix(slice.layer).row_range(slice.row_begin, slice.row_end),
                                       unusable.at(index_of(slice.layer)));
    }
    refuse_unusable_scores(context_, unusable, block);
}

void BlockMasker::gather_mask(BlockTensor& mask) const {
    gather_parts(context_.group, partition_, mask);
}

void BlockMasker::gather_weights(BlockWeights& weights) const {
    gather_parts(context_.group, partition_, weights.matrices);
}

}  // namespace espalier
