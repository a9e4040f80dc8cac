#pragma once
/// One rank takes every step alone, on one sample: the step is applied to each gradient panel while it is in the cache.

#include "src/optimize/step_sharing.h"

namespace espalier {

class OwnerSteps final : public StepSharing {
  public:
    OwnerSteps(const OptimizerState& state, StepAssignment assignment) : state_(state), assignment_(assignment) {}

    StepAssignment assignment() const override { return assignment_; }
    void take(const OptimizerStep& step, const std::vector<StepSample>& mine, const std::vector<std::size_t>& offsets,
              const BlockTensor* held_mask, const SamplePass& pass) override;
    void settle() override { state_.weights().share(); }

  private:
    const OptimizerState& state_;
    StepAssignment assignment_;
};

}  // namespace espalier
