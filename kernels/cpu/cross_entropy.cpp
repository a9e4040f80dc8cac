// Cross-entropy over the vocabulary in panels, with a running maximum and sum (online log-sum-exp), so that the logits
// of a window never exist as a whole.
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/exponential.h"
#include "kernels/cpu/parallel.h"

#include <algorithm>
#include <cmath>
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

void CpuDevice::token_loss_gradient(const LossWeights& loss, const LogitSums& sums, std::size_t first_token,
                                    std::span<const std::int32_t> targets, TensorView teacher,
                                    const LogitSums& teacher_sums, TensorView divergences, TensorView logits) {
    require(targets.size() == logits.rows && sums.running_max.size() == logits.rows, "shapes of token_loss_gradient");
    require(teacher.empty() == (loss.divergence == 0) && (teacher.empty() || teacher.size() == logits.size()),
            "the teacher of token_loss_gradient");
    const float total = loss.language_model + loss.divergence;
    cpu::parallel_for(logits.rows, [&](std::size_t row) {
        float* const values = logits.floats() + row * logits.columns;
        const float log_sum = sums.running_max.floats()[row] + std::log(sums.running_sum.floats()[row]);
        if (teacher.empty()) {
#pragma omp simd
            for (std::size_t j = 0; j < logits.columns; ++j) values[j] = total * cpu::exponential(values[j] - log_sum);
        } else {
            const float* const of_teacher = teacher.floats() + row * logits.columns;
            const float teacher_log_sum =
                teacher_sums.running_max.floats()[row] + std::log(teacher_sums.running_sum.floats()[row]);
            float divergence = 0;
#pragma omp simd reduction(+ : divergence)
            for (std::size_t j = 0; j < logits.columns; ++j) {
                const float log_p = values[j] - log_sum, log_q = of_teacher[j] - teacher_log_sum;
                const float q = cpu::exponential(log_q);
                divergence += q * (log_q - log_p);
                values[j] = total * cpu::exponential(log_p) - loss.divergence * q;
            }
            divergences.floats()[row] += divergence;
        }
        const auto target = static_cast<std::size_t>(targets[row]);
        if (target >= first_token && target < first_token + logits.columns) {
            values[target - first_token] -= loss.language_model;
        }
    });
}

}  // namespace espalier
