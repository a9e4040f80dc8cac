#include "src/optimize/owner_steps.h"

namespace espalier {

namespace {

class ImmediateStep final : public WeightGradientSink {
  public:
    ImmediateStep(const OptimizerState& state, const OptimizerStep& step, const BlockTensor* held_mask)
        : state_(state), step_(step), held_mask_(held_mask) {}

    void consume(LinearLayer layer, std::size_t row_begin, TensorView panel) override {
        state_.step(step_, {layer, row_begin, row_begin + panel.rows}, panel, held_mask_);
    }

  private:
    const OptimizerState& state_;
    OptimizerStep step_;
    const BlockTensor* held_mask_;
};

}  // namespace

void OwnerSteps::take(const OptimizerStep& step, const std::vector<std::size_t>& offsets, const BlockTensor* held_mask,
                      const StepPass& pass) {
    require(offsets.back() <= 1, "a step of one pass: sums of several are shared by all ranks");
    ImmediateStep sink(state_, step, held_mask);
    if (offsets[me_ + 1] > offsets[me_]) pass(0, sink);
}

}  // namespace espalier
