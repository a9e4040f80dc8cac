#pragma once
/// What an optimiser holds of a block on one rank: the weights that it moves and its rule's moments, and the step on
/// some of their rows. Which rule it is, only kernels/optimizer_step.h and the backends know.

#include "src/blocks/weight_partition.h"
#include "src/optimize/optimized_weights.h"

#include <utility>
#include <vector>

namespace espalier {

class OptimizerState {
  public:
    /// Moments of this rank's part. `weights` outlive it.
    OptimizerState(const GroupContext& context, const WeightPartition& partition, const OptimizerRule& rule,
                   OptimizedWeights& weights);

    /// Moments of zero, and the run's weights.
    void reset();
    /// What a step's rate is multiplied by for each matrix; 1 otherwise.
    void set_relative_rates(std::vector<double> rates) { relative_rates_ = std::move(rates); }
    /// One step on rows of this rank's part; `held_mask`: removed weights stay removed, when it is not null.
    void step(const OptimizerStep& step, const RowSlice& rows, TensorView gradient, const BlockTensor* held_mask) const;

    OptimizedWeights& weights() const { return weights_; }
    const WeightPartition& partition() const { return partition_; }

  private:
    Device& device_;
    const BlockLayout& layout_;
    const WeightPartition& partition_;
    OptimizedWeights& weights_;
    std::vector<PartTensor> moments_;
    std::vector<double> relative_rates_;  ///< by matrix, or none
};

}  // namespace espalier
