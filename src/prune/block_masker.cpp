#include "src/prune/block_masker.h"

#include "src/base/error.h"

#include <string>

namespace espalier {

void refuse_unusable_scores(const GroupContext& context, const std::array<std::size_t, linear_layers>& unusable,
                            std::size_t block) {
    const auto all = context.group.all_gather_value(unusable);
    for (std::size_t layer = 0; layer < linear_layers; ++layer) {
        std::size_t count = 0;
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

void BlockMasker::apply(const InputNorms& norms, std::size_t block, BlockWeights& weights, BlockTensor& mask) const {
    std::array<std::size_t, linear_layers> unusable{};
    for (const RowSlice& slice : partition_.slices_of(context_.me())) {
        unusable[index_of(slice.layer)] += context_.device.score_and_mask(
            terms_for(norms, slice), options_.pattern,
            weights.matrices.matrix(slice.layer).row_range(slice.row_begin, slice.row_end),
            mask.matrix(slice.layer).row_range(slice.row_begin, slice.row_end));
    }
    refuse_unusable_scores(context_, unusable, block);
    gather_weights(weights);
}

void BlockMasker::gather_mask(BlockTensor& mask) const {
    context_.group.all_gather(std::span<std::uint8_t>(mask.all().mask_bytes(), mask.all().size()),
                              partition_.offsets());
}

void BlockMasker::gather_weights(BlockWeights& weights) const {
    const TensorView all = weights.matrices.all();
    context_.group.all_gather(std::span<float>(all.floats(), all.size()), partition_.offsets());
}

}  // namespace espalier
