#pragma once
/// Which rank scores, optimises and owns the state of which rows of a block's matrices. A block's weights are one
/// vector (layout order); every rank has one contiguous part of it, cut at whole rows.

#include "kernels/device.h"
#include "mpi/ordered_sum.h"
#include "src/model/block_layout.h"

#include <cstddef>
#include <vector>

namespace espalier {

/// Some rows of one matrix.
struct RowSlice {
    LinearLayer layer = LinearLayer::q_proj;
    std::size_t row_begin = 0;
    std::size_t row_end = 0;
    std::size_t offset = 0;  ///< of its first element in the block's weights
};

class WeightPartition {
  public:
    /// Layers first … last in nearly equal parts, cut at multiples of 64 rows (the kernels' unit, so that shapes inside
    /// a part do not depend on the number of ranks).
    static WeightPartition balanced(const BlockLayout& layout, std::size_t ranks,
                                    LinearLayer first = LinearLayer::q_proj, LinearLayer last = LinearLayer::down_proj);
    /// Everything on one rank.
    static WeightPartition all_on(const BlockLayout& layout, std::size_t ranks, std::size_t owner);

    /// Part r of the block's weights is [offsets()[r], offsets()[r + 1]).
    const PartOffsets& offsets() const { return offsets_; }
    std::size_t size_of(std::size_t rank) const { return offsets_[rank + 1] - offsets_[rank]; }
    const std::vector<RowSlice>& slices_of(std::size_t rank) const { return slices_[rank]; }
    /// The same parts, as offsets inside one matrix.
    PartOffsets offsets_in(const MatrixShape& matrix) const;

  private:
    WeightPartition(const BlockLayout& layout, PartOffsets offsets);
    PartOffsets offsets_;
    std::vector<std::vector<RowSlice>> slices_;
};

/// State of one rank's part of a block's weights: gradient G, RMSprop's v …
class PartTensor {
  public:
    PartTensor() = default;
    PartTensor(Device& device, const WeightPartition& partition, std::size_t rank)
        : first_(partition.offsets()[rank]), storage_(device.make_tensor(DType::f32, 1, partition.size_of(rank))) {}

    bool empty() const { return storage_.empty(); }
    TensorView all() const { return storage_.view(); }
    /// Rows of a slice of this rank's part, [row_end - row_begin, columns].
    TensorView slice(const RowSlice& slice, std::size_t columns) const {
        const TensorView& all = storage_.view();
        const std::size_t begin = slice.offset - first_;
        require((begin + (slice.row_end - slice.row_begin) * columns) <= all.size(), "a slice of this rank's part");
        return {all.data + begin * bytes_of(all.dtype), all.dtype, slice.row_end - slice.row_begin, columns};
    }

  private:
    std::size_t first_ = 0;
    Tensor storage_;
};

}  // namespace espalier
