#pragma once
/// The weights of one decoder block on a device.

#include "kernels/device.h"
#include "src/model/block_layout.h"

#include <cstddef>
#include <optional>
#include <vector>

namespace espalier {

/// A vector over all weights of a block, one allocation, seen as its matrices: weights, gradients, masks.
class BlockTensor {
  public:
    BlockTensor() = default;
    /// Uninitialised. `name`: of its memory.
    BlockTensor(Device& device, const BlockLayout& layout, DType dtype, const char* name);

    bool empty() const { return storage_.empty(); }
    /// All weights as one row.
    TensorView all() const { return storage_.view(); }
    TensorView matrix(LinearLayer layer) const { return matrices_[index_of(layer)]; }

  private:
    Tensor storage_;
    std::vector<TensorView> matrices_;
};

/// y = x W^T + b. The only way by which a block's halves reach a matrix, forward and back: BlockHalf::project and
/// project_gradient, which also know of terms that are no weights (ProjectionTerm).
struct Projection {
    TensorView weight;  ///< [out, in]
    TensorView bias;    ///< [1, out], or empty
};

/// Matrices and vectors of a block.
class BlockWeights {
  public:
    BlockWeights(Device& device, const BlockLayout& layout, DType dtype, const char* name = "weights");

    BlockTensor matrices;
    /// Which block of the model they are of: it decides how the block computes (ModelConfig::blocks).
    std::size_t block = 0;

    DType dtype() const { return matrices.all().dtype; }
    TensorView vector(BlockVector which) const { return vectors_[index_of(which)].view(); }
    Projection projection(LinearLayer layer) const;

  private:
    std::vector<Tensor> vectors_;
    std::vector<std::optional<BlockVector>> biases_;  ///< by matrix
};

}  // namespace espalier
