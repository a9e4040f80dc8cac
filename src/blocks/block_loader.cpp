#include "src/blocks/block_loader.h"

#include "src/weights/model_source.h"

#include <vector>

namespace espalier {

BlockPart::BlockPart(Device& device, const BlockLayout& layout, const BlockStorage& storage,
                     const WeightPartition& partition, std::size_t rank)
    : slices_(partition.slices_of(rank)),
      vectors_begin_(partition.size_of(rank) * bytes_of(storage.matrix_dtype)),
      bytes_(device, vectors_begin_ + storage.vector_bytes(layout)) {
    std::size_t offset = 0;
    for (const RowSlice& slice : slices_) {
        rows_.push_back(bytes_.view(storage.matrix_dtype, offset, slice.rows(), layout.matrix(slice.layer).columns));
        offset += rows_.back().bytes();
    }
}

void BlockPart::for_each_slice(const std::function<void(const RowSlice&, TensorView)>& visit) const {
    for (std::size_t i = 0; i < slices_.size(); ++i) visit(slices_[i], rows_[i]);
}

BlockLoader::BlockLoader(Device& device, const BlockLayout& layout, Communicator& group)
    : device_(device),
      layout_(layout),
      group_(group),
      partition_(WeightPartition::balanced(layout, static_cast<std::size_t>(group.size()))) {}

BlockPart BlockLoader::read(const BlockSource& source, std::size_t block) const {
    BlockPart part(device_, layout_, source.storage(), partition_, static_cast<std::size_t>(group_.rank()));
    if (static_cast<std::size_t>(group_.rank()) == block % static_cast<std::size_t>(group_.size())) {
        source.verify_block(block);
    }
    part.for_each_slice([&](const RowSlice& slice, TensorView rows) {
        source.read_rows(block, slice, {rows.data, rows.bytes()});
    });
    source.read_vectors(block, part.vectors());
    return part;
}

void BlockLoader::load(const BlockStorage& storage, std::size_t block, const BlockPart& part,
                       BlockWeights& weights) const {
    weights.block = block;
    part.for_each_slice([&](const RowSlice& slice, TensorView rows) {
        device_.convert(rows, weights.matrices.matrix(slice.layer).row_range(slice.row_begin, slice.row_end));
    });
    load_vectors(storage, part.vectors(), weights);
    gather_parts(group_, partition_, weights.matrices);
    refuse_nonfinite_weights(device_, layout_, block, weights);
}

void BlockLoader::load_vectors(const BlockStorage& storage, std::span<const std::byte> stored,
                               BlockWeights& weights) const {
    std::size_t offset = 0;
    for (std::size_t v = 0; v < layout_.vectors().size(); ++v) {
        const VectorShape& vector = layout_.vectors()[v];
        // Through the host: after an odd number of 16-bit values a device could not read float32 in place.
        std::vector<float> values(vector.size);
        widen_to_float(storage.vector_dtypes[v], stored.data() + offset, vector.size, values.data());
        device_.copy_from_host(values.data(), weights.vector(BlockVector{v}));
        offset += vector.size * bytes_of(storage.vector_dtypes[v]);
    }
}

}  // namespace espalier
