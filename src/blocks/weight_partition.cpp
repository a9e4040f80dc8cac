#include "src/blocks/weight_partition.h"

#include "mpi/tensor_collectives.h"
#include "src/base/index_range.h"

#include <algorithm>

namespace espalier {

namespace {

constexpr std::size_t rows_per_unit = 64;

PartOffsets cut(const MatrixShape& matrix, std::size_t ranks) {
    const std::size_t units = (matrix.rows + rows_per_unit - 1) / rows_per_unit;
    PartOffsets offsets = {0};
    for (std::size_t rank = 0; rank < ranks; ++rank) {
        const std::size_t rows = part_of(units, ranks, rank).end * rows_per_unit;
        offsets.push_back(std::min(rows, matrix.rows) * matrix.columns);
    }
    return offsets;
}

}  // namespace

WeightPartition WeightPartition::balanced(const BlockLayout& layout, std::size_t ranks,
                                          std::optional<LinearInput> only) {
    WeightPartition partition(layout);
    for (const LinearLayer layer : layout.linear_layers()) {
        const bool inside = !only || layout.matrix(layer).input == *only;
        partition.offsets_[index_of(layer)] = inside ? cut(layout.matrix(layer), ranks) : PartOffsets(ranks + 1, 0);
    }
    return partition;
}

WeightPartition WeightPartition::all_on(const BlockLayout& layout, std::size_t ranks, std::size_t owner) {
    WeightPartition partition(layout);
    for (const LinearLayer layer : layout.linear_layers()) {
        PartOffsets& offsets = partition.offsets_[index_of(layer)];
        offsets.assign(ranks + 1, 0);
        std::fill(offsets.begin() + static_cast<std::ptrdiff_t>(owner) + 1, offsets.end(), layout.matrix(layer).size());
    }
    return partition;
}

std::vector<RowSlice> WeightPartition::slices_of(std::size_t rank) const {
    std::vector<RowSlice> slices;
    for (const LinearLayer layer : layout_->linear_layers()) {
        const PartOffsets& offsets = offsets_in(layer);
        const std::size_t columns = layout_->matrix(layer).columns;
        if (offsets[rank] < offsets[rank + 1]) {
            slices.push_back({layer, offsets[rank] / columns, offsets[rank + 1] / columns});
        }
    }
    return slices;
}

std::size_t WeightPartition::size_of(std::size_t rank) const {
    std::size_t size = 0;
    for (const PartOffsets& offsets : offsets_) size += offsets[rank + 1] - offsets[rank];
    return size;
}

PartTensor::PartTensor(Device& device, const WeightPartition& partition, std::size_t rank, const char* name)
    : storage_(device.make_tensor(DType::f32, 1, partition.size_of(rank), name)) {
    std::size_t offset = 0;
    for (const LinearLayer layer : partition.layout().linear_layers()) {
        const PartOffsets& offsets = partition.offsets_in(layer);
        places_.push_back({offsets[rank], offsets[rank + 1] - offsets[rank], offset});
        offset += places_.back().count;
    }
}

TensorView PartTensor::slice(const RowSlice& slice, std::size_t columns) const {
    const Place& place = places_[index_of(slice.layer)];
    const std::size_t begin = slice.row_begin * columns, end = slice.row_end * columns;
    require(begin >= place.first && end <= place.first + place.count, "a slice of this rank's part");
    const TensorView& all = storage_.view();
    return {all.data + (place.offset + begin - place.first) * bytes_of(all.dtype), all.dtype,
            slice.row_end - slice.row_begin, columns};
}

TensorView PartTensor::of_layer(LinearLayer layer) const {
    const Place& place = places_[index_of(layer)];
    const TensorView& all = storage_.view();
    return {all.data + place.offset * bytes_of(all.dtype), all.dtype, 1, place.count};
}

void gather_parts(Communicator& group, const WeightPartition& partition, const BlockTensor& tensor) {
    for (const LinearLayer layer : partition.layout().linear_layers()) {
        const PartOffsets& offsets = partition.offsets_in(layer);
        if (offsets.back() > 0) all_gather(group, tensor.matrix(layer), offsets);
    }
}

}  // namespace espalier
