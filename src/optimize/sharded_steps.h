#pragma once
/// Mini-batches over all ranks: gradients are summed in a fixed order, each rank steps the rows of its part, and the
/// new rows go to all. Adding, stepping and sending of one matrix overlap with the backward pass of the next.

#include "mpi/ordered_sum.h"
#include "src/optimize/step_sharing.h"

#include <map>
#include <vector>

namespace espalier {

class ShardedSteps final : public StepSharing {
  public:
    /// `samples_of_pass`: that go through the block together.
    ShardedSteps(const GroupContext& context, std::size_t samples_of_pass, const OptimizerState& state);

    StepAssignment assignment() const override { return StepAssignment::spread(context_.ranks(), samples_of_pass_); }
    void take(const OptimizerStep& step, const std::vector<std::size_t>& offsets, const BlockTensor* held_mask,
              const StepPass& pass) override;
    void settle() override {}  // every step leaves the same weights everywhere

  private:
    /// Sums of a step of as many passes as `offsets` ends with; the last step of a round may be smaller.
    std::vector<OrderedSum>& sums_for(const std::vector<std::size_t>& offsets);
    /// Finishes a matrix's gradient sum and steps this rank's rows of it.
    void step_part(const OptimizerStep& step, LinearLayer layer, OrderedSum& sum, const BlockTensor* held_mask);

    GroupContext context_;
    std::size_t samples_of_pass_;
    const OptimizerState& state_;
    PartTensor gradient_;  ///< of this rank's part
    std::map<std::size_t, std::vector<OrderedSum>> sums_;
};

}  // namespace espalier
