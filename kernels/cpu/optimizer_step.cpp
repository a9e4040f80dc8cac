// A step of any optimiser's rule.
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/optimizer_rules.h"

namespace espalier {

void CpuDevice::optimizer_step(const OptimizerStep& step, const OptimizedRows& rows) {
    check_shapes(step, rows);
    std::visit([&](const auto& rule) { cpu::step_rows(rule, step, rows); }, step.rule);
    if (!rows.rounded.empty()) convert(rows.weight, rows.rounded);
}

}  // namespace espalier
