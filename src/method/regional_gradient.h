#pragma once
/// Regional gradient G_ij = sqrt((1/N) sum_n (dL_n / dW_ij)^2) of the regional loss L_n = ||f(X_n)||_F (Wanda++ §4.1),
/// summed over shards in a fixed tree.

#include "mpi/ordered_sum.h"
#include "src/blocks/group_context.h"
#include "src/blocks/weight_partition.h"
#include "src/model/decoder_block.h"

#include <cstddef>
#include <vector>

namespace espalier {

/// Squares the weight gradients of one sample after the other into the sum of its shard. Feed shards in ascending
/// order.
class RegionalGradient final : public WeightGradientSink {
  public:
    /// `weights`: their type in the passes.
    RegionalGradient(const GroupContext& context, DType weights);

    /// Backward passes start from this multiple of dL/dy, a power of two that keeps gradients inside the range of
    /// float16, and G is divided by it.
    float scale() const { return scale_; }

    void begin_shard();
    void consume(LinearLayer layer, std::size_t row_begin, TensorView panel) override;
    void end_shard();

    /// G of this rank's part. Collective; the object is then used up.
    PartTensor finish(const WeightPartition& partition);

  private:
    GroupContext context_;
    float scale_;
    std::vector<OrderedSum> sums_;   ///< one a matrix
    std::vector<TensorView> shard_;  ///< by matrix
};

}  // namespace espalier
