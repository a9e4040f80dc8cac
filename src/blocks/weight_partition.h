#pragma once
/// Which rank reads, scores, optimises and owns the state of which rows of a block's matrices. Every matrix is cut by
/// itself, so that its gradient's sum and its stepped weights travel between all ranks at once, while the next one is
/// computed.

#include "kernels/device.h"
#include "mpi/communicator.h"
#include "mpi/ordered_sum.h"
#include "src/model/block_layout.h"
#include "src/model/block_weights.h"

#include <cstddef>
#include <optional>
#include <vector>

namespace espalier {

class WeightPartition {
  public:
    /// Each layer in nearly equal parts, cut at multiples of 64 rows (the kernels' unit, so that shapes inside a part
    /// do not depend on the number of ranks). When an input is named, only its layers; the others have no parts.
    static WeightPartition balanced(const BlockLayout& layout, std::size_t ranks, std::optional<LinearInput> only = {});
    /// Everything on one rank.
    static WeightPartition all_on(const BlockLayout& layout, std::size_t ranks, std::size_t owner);

    const BlockLayout& layout() const { return *layout_; }
    /// Elements of a matrix that rank r has: [offsets[r], offsets[r + 1]).
    const PartOffsets& offsets_in(LinearLayer layer) const { return offsets_[index_of(layer)]; }
    /// This rank's rows, layer by layer; layers of which it has none are left out.
    std::vector<RowSlice> slices_of(std::size_t rank) const;
    /// Elements of all of a rank's slices.
    std::size_t size_of(std::size_t rank) const;

  private:
    explicit WeightPartition(const BlockLayout& layout) : layout_(&layout), offsets_(layout.matrices().size()) {}
    const BlockLayout* layout_;
    std::vector<PartOffsets> offsets_;  ///< by layer
};

/// State of one rank's part of a block's weights: gradient G, an optimiser's moments … Its slices lie one after the
/// other.
class PartTensor {
  public:
    PartTensor() = default;
    PartTensor(Device& device, const WeightPartition& partition, std::size_t rank, const char* name);

    bool empty() const { return storage_.empty(); }
    TensorView all() const { return storage_.view(); }
    /// Rows of this rank's part, [row_end - row_begin, columns].
    TensorView slice(const RowSlice& slice, std::size_t columns) const;
    /// All of this rank's elements of a matrix, as one row.
    TensorView of_layer(LinearLayer layer) const;

  private:
    struct Place {
        std::size_t first = 0;   ///< element of the matrix that comes first here
        std::size_t count = 0;   ///< elements of the matrix
        std::size_t offset = 0;  ///< of the first one in the storage
    };
    std::vector<Place> places_;  ///< by layer
    Tensor storage_;
};

/// Completes `tensor` from the parts of all ranks. Collective.
void gather_parts(Communicator& group, const WeightPartition& partition, const BlockTensor& tensor);

}  // namespace espalier
