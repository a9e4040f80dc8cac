#include "src/method/block_masker.h"

#include "mpi/tensor_collectives.h"
#include "src/base/error.h"

#include <algorithm>
#include <string>
#include <vector>

namespace espalier {

void refuse_unusable_scores(const GroupContext& context, const DeviceCounters& unusable, std::size_t block) {
    const std::vector<std::uint64_t> read = unusable.read();
    const std::size_t layers = context.layout.matrices().size();
    std::vector<std::uint64_t> all(layers * context.ranks());
    std::copy_n(read.begin(), layers, all.begin() + static_cast<std::ptrdiff_t>(layers * context.me()));
    std::vector<std::size_t> offsets;
    for (std::size_t rank = 0; rank <= context.ranks(); ++rank) offsets.push_back(rank * layers);
    context.control.all_gather(std::span<std::uint64_t>(all), offsets);
    for (const LinearLayer layer : context.layout.linear_layers()) {
        std::uint64_t count = 0;
        for (std::size_t rank = 0; rank < context.ranks(); ++rank) count += all[rank * layers + index_of(layer)];
        if (count == 0) continue;
        throw NonFiniteError(std::to_string(count) + " scores of tensor '" + context.layout.weight_name(block, layer) +
                             "' are infinite or not a number; a smaller learning rate, a smaller --alpha or other "
                             "calibration tokens may help");
    }
}

BlockMasker::BlockMasker(const GroupContext& context, const PruneOptions& options, const WeightPartition& partition,
                         const PartTensor& gradient)
    : context_(context), options_(options), partition_(partition), gradient_(gradient) {}

ScoreTerms BlockMasker::terms_for(const InputNorms& norms, const RowSlice& slice) const {
    ScoreTerms terms;
    const Method& method = options_.method;
    require(method.score != Score::sparsegpt, "a score that is known before the sweep");
    if (!method.uses_input_norms()) return terms;
    terms.input_norms = norms.of(context_.layout.matrix(slice.layer).input);
    if (!method.uses_regional_gradient()) return terms;
    terms.gradient = gradient_.slice(slice, context_.layout.matrix(slice.layer).columns);
    terms.alpha = static_cast<float>(options_.alpha);
    return terms;
}

void BlockMasker::mask_part(const InputNorms& norms, std::size_t block, const RowsOf& weights,
                            BlockTensor& mask) const {
    const DeviceCounters unusable(context_.device, context_.layout.matrices().size());
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
