#include "src/finetune/trained_layout.h"

#include "src/base/index_range.h"

#include <algorithm>

namespace espalier {

void TrainedLayout::add(TrainedTensor tensor) {
    tensor.offset = size_;
    size_ += tensor.size();
    tensors_.push_back(std::move(tensor));
}

void TrainedLayout::finish() {
    constexpr std::size_t most_chunks = 64, unit = 1024;
    chunk_ = std::max<std::size_t>(1, (size_ + most_chunks * unit - 1) / (most_chunks * unit)) * unit;
}

TrainedLayout TrainedLayout::of_block(const BlockLayout& layout, const FinetuneOptions& options) {
    TrainedLayout trained;
    for (const LinearLayer layer : layout.linear_layers()) {
        const MatrixShape& matrix = layout.matrix(layer);
        if (!options.is_target(matrix)) continue;
        if (!options.low_rank()) {
            trained.add({matrix.name + ".weight", TrainedKind::weight, matrix.rows, matrix.columns, 0, layer});
            continue;
        }
        trained.add({matrix.name + ".lora_A.weight", TrainedKind::lora_a, options.rank, matrix.columns, 0, layer});
        trained.add({matrix.name + ".lora_B.weight", TrainedKind::lora_b, matrix.rows, options.rank, 0, layer});
    }
    for (std::size_t v = 0; options.train_norms && v < layout.vectors().size(); ++v) {
        const VectorShape& vector = layout.vectors()[v];
        if (!vector.bias_of) trained.add({vector.name, TrainedKind::gain, 1, vector.size, 0, {}, BlockVector{v}});
    }
    trained.finish();
    return trained;
}

TrainedLayout TrainedLayout::of_end(const BlockLayout& layout, const FinetuneOptions& options,
                                    std::size_t hidden_size) {
    TrainedLayout trained;
    if (options.train_norms)
        trained.add({layout.outer_name(OuterTensor::final_norm), TrainedKind::gain, 1, hidden_size});
    trained.finish();
    return trained;
}

const TrainedTensor* TrainedLayout::find(TrainedKind kind, LinearLayer layer) const {
    const auto found = std::ranges::find_if(
        tensors_, [&](const TrainedTensor& tensor) { return tensor.kind == kind && tensor.layer == layer; });
    return found == tensors_.end() ? nullptr : &*found;
}

const TrainedTensor* TrainedLayout::find(BlockVector norm) const {
    const auto found = std::ranges::find_if(tensors_, [&](const TrainedTensor& tensor) {
        return tensor.kind == TrainedKind::gain && tensor.vector == norm;
    });
    return found == tensors_.end() ? nullptr : &*found;
}

PartOffsets TrainedLayout::parts(std::size_t ranks) const {
    const std::size_t chunks = (size_ + chunk_ - 1) / chunk_;
    PartOffsets offsets = {0};
    for (std::size_t rank = 0; rank < ranks; ++rank) {
        offsets.push_back(std::min(size_, part_of(chunks, ranks, rank).end * chunk_));
    }
    return offsets;
}

PartOffsets TrainedLayout::parts_in(const TrainedTensor& tensor, const PartOffsets& parts) {
    PartOffsets offsets;
    for (const std::size_t offset : parts) {
        offsets.push_back(std::clamp(offset, tensor.offset, tensor.offset + tensor.size()) - tensor.offset);
    }
    return offsets;
}

TensorView values_of(const TrainedTensor& tensor, TensorView vector) {
    require(vector.columns >= tensor.offset + tensor.size(), "a vector of all trained values");
    return {vector.data + tensor.offset * bytes_of(vector.dtype), vector.dtype, tensor.rows, tensor.columns};
}

}  // namespace espalier
