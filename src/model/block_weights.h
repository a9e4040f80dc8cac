#pragma once
/// The weights of one decoder block on a device.

#include "kernels/device.h"
#include "src/model/block_layout.h"

#include <array>
#include <cstddef>

namespace espalier {

/// A vector over all weights of a block, one allocation, seen as seven matrices: weights, gradients, RMSprop state,
/// masks.
class BlockTensor {
  public:
    BlockTensor() = default;
    /// Uninitialised.
    BlockTensor(Device& device, const BlockLayout& layout, DType dtype);

    bool empty() const { return storage_.empty(); }
    /// All weights as one row.
    TensorView all() const { return storage_.view(); }
    TensorView matrix(LinearLayer layer) const { return matrices_[index_of(layer)]; }

  private:
    Tensor storage_;
    std::array<TensorView, linear_layers> matrices_;
};

/// Matrices and vectors of a block. Absent vectors are empty views.
class BlockWeights {
  public:
    BlockWeights(Device& device, const BlockLayout& layout, DType dtype);

    BlockTensor matrices;
    DType dtype() const { return matrices.all().dtype; }
    TensorView vector(BlockVector which) const { return vectors_[static_cast<std::size_t>(which)].view(); }

  private:
    std::array<Tensor, block_vectors> vectors_;
};

}  // namespace espalier
