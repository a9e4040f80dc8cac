// Cross-entropy over the vocabulary in panels, with a running maximum and sum (online log-sum-exp), so that the logits
// of a window never exist as a whole.
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/exponential.h"
#include "kernels/cpu/parallel.h"

#include <algorithm>
#include <limits>

namespace espalier {

void CpuDevice::start_cross_entropy(TensorView running_max, TensorView running_sum, TensorView target_logit) {
    std::fill_n(running_max.floats(), running_max.size(), -std::numeric_limits<float>::infinity());
    std::fill_n(running_sum.floats(), running_sum.size(), 0.0F);
    std::fill_n(target_logit.floats(), target_logit.size(), 0.0F);
}

void CpuDevice::cross_entropy_panel(TensorView logits, std::size_t first_token, std::span<const std::int32_t> targets,
                                    TensorView running_max, TensorView running_sum, TensorView target_logit) {
    require(targets.size() == logits.rows && running_max.size() == logits.rows, "shapes of cross_entropy_panel");
    cpu::parallel_for(logits.rows, [&](std::size_t row) {
        const float* const values = logits.floats() + row * logits.columns;
        float& largest = running_max.floats()[row];
        float& sum = running_sum.floats()[row];
        float panel_largest = largest;
#pragma omp simd reduction(max : panel_largest)
        for (std::size_t j = 0; j < logits.columns; ++j) {
            panel_largest = values[j] > panel_largest ? values[j] : panel_largest;
        }
        float panel_sum = 0;
#pragma omp simd reduction(+ : panel_sum)
        for (std::size_t j = 0; j < logits.columns; ++j) panel_sum += cpu::exponential(values[j] - panel_largest);
        sum = sum * cpu::exponential(largest - panel_largest) + panel_sum;
        largest = panel_largest;
        const auto target = static_cast<std::size_t>(targets[row]);
        if (target >= first_token && target < first_token + logits.columns) {
            target_logit.floats()[row] = values[target - first_token];
        }
    });
}

}  // namespace espalier
