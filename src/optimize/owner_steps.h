#pragma once
/// One rank takes every step alone, in one pass: the step is applied to each gradient panel while it is in the cache.

#include "src/optimize/step_sharing.h"

namespace espalier {

class OwnerSteps final : public StepSharing {
  public:
    OwnerSteps(const OptimizerState& state, StepAssignment assignment, std::size_t me)
        : state_(state), assignment_(assignment), me_(me) {}

    StepAssignment assignment() const override { return assignment_; }
    void take(const OptimizerStep& step, const std::vector<std::size_t>& offsets, const BlockTensor* held_mask,
              const StepPass& pass) override;
    void settle() override { state_.weights().share(); }

  private:
    const OptimizerState& state_;
    StepAssignment assignment_;
    std::size_t me_;
};

}  // namespace espalier
