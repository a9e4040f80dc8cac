#include "src/method/regional_gradient.h"

namespace espalier {

RegionalGradient::RegionalGradient(const GroupContext& context, DType weights)
    : context_(context), scale_(weights == DType::f16 ? 1024.0F : 1.0F) {
    const std::vector<std::size_t> shard_offsets = context.topology.shard_offsets(context.block_group);
    for (const MatrixShape& matrix : context.layout.matrices()) {
        sums_.emplace_back(context.device, context.group, matrix.size(), shard_offsets,
                           "sums of the regional gradient");
    }
}

void RegionalGradient::begin_shard() {
    shard_.clear();
    for (const LinearLayer layer : context_.layout.linear_layers()) {
        const MatrixShape& matrix = context_.layout.matrix(layer);
        shard_.push_back(sums_[index_of(layer)].begin_leaf().reshaped(matrix.rows, matrix.columns));
    }
}

void RegionalGradient::consume(LinearLayer layer, std::size_t row_begin, TensorView panel) {
    context_.device.square_accumulate(panel, shard_[index_of(layer)].row_range(row_begin, row_begin + panel.rows));
}

void RegionalGradient::end_shard() {
    for (OrderedSum& sum : sums_) sum.end_leaf();
}

PartTensor RegionalGradient::finish(const WeightPartition& partition) {
    for (OrderedSum& sum : sums_) sum.release_spare();
    PartTensor gradient(context_.device, partition, context_.me(), "regional gradient");
    for (const LinearLayer layer : context_.layout.linear_layers()) {
        // One matrix in flight: the receiving rank holds every other rank's partial sums of it.
        sums_[index_of(layer)].start_reduce(partition.offsets_in(layer));
        sums_[index_of(layer)].finish_reduce(gradient.of_layer(layer));
        sums_[index_of(layer)].release_spare();
    }
    sums_.clear();
    // The scale is a power of two: nothing is rounded by it.
    context_.device.scaled_square_root(1.0F / (static_cast<float>(context_.topology.samples()) * scale_ * scale_),
                                       gradient.all());
    return gradient;
}

}  // namespace espalier
