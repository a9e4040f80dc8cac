// A step of any optimiser's rule.
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/optimizer_rules.h"

namespace espalier {

void CudaDevice::optimizer_step(const OptimizerStep& step, const OptimizedRows& rows) {
    check_shapes(step, rows);
    std::visit([&](const auto& rule) { cuda::step_rows(stream_, rule, step, rows); }, step.rule);
}

}  // namespace espalier
