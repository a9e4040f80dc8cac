#include "src/prune/weight_partition.h"

#include <algorithm>

namespace espalier {

namespace {

constexpr std::size_t rows_per_unit = 64;

/// The cut nearest below `position` that falls on a multiple of 64 rows of the matrix it lies in.
std::size_t cut_below(const BlockLayout& layout, std::size_t position) {
    for (const MatrixShape& matrix : layout.matrices()) {
        if (position >= matrix.offset + matrix.size()) continue;
        const std::size_t row = (position - matrix.offset) / matrix.columns;
        return matrix.offset + row / rows_per_unit * rows_per_unit * matrix.columns;
    }
    return layout.weights();
}

}  // namespace

WeightPartition::WeightPartition(const BlockLayout& layout, PartOffsets offsets) : offsets_(std::move(offsets)) {
    for (std::size_t rank = 0; rank + 1 < offsets_.size(); ++rank) {
        std::vector<RowSlice>& slices = slices_.emplace_back();
        for (const LinearLayer layer : all_linear_layers) {
            const MatrixShape& matrix = layout.matrix(layer);
            const std::size_t begin = std::max(offsets_[rank], matrix.offset);
            const std::size_t end = std::min(offsets_[rank + 1], matrix.offset + matrix.size());
            if (begin >= end) continue;
            slices.push_back(
                {layer, (begin - matrix.offset) / matrix.columns, (end - matrix.offset) / matrix.columns, begin});
        }
    }
}

WeightPartition WeightPartition::balanced(const BlockLayout& layout, std::size_t ranks, LinearLayer first,
                                          LinearLayer last) {
    const std::size_t begin = layout.matrix(first).offset;
    const std::size_t end = layout.matrix(last).offset + layout.matrix(last).size();
    PartOffsets offsets = {begin};
    for (std::size_t r = 1; r < ranks; ++r) {
        offsets.push_back(std::max(begin, cut_below(layout, begin + r * (end - begin) / ranks)));
    }
    offsets.push_back(end);
    return {layout, offsets};
}

WeightPartition WeightPartition::all_on(const BlockLayout& layout, std::size_t ranks, std::size_t owner) {
    PartOffsets offsets(ranks + 1, 0);
    std::fill(offsets.begin() + static_cast<std::ptrdiff_t>(owner) + 1, offsets.end(), layout.weights());
    return {layout, offsets};
}

PartOffsets WeightPartition::offsets_in(const MatrixShape& matrix) const {
    PartOffsets inside;
    for (const std::size_t offset : offsets_) {
        inside.push_back(std::clamp(offset, matrix.offset, matrix.offset + matrix.size()) - matrix.offset);
    }
    return inside;
}

}  // namespace espalier
