// One AdamW step on a panel of weights.
#include "kernels/cpu/optimizer_rules.h"
#include "kernels/cpu/parallel.h"

#include <cmath>
#include <cstdint>

namespace espalier {

void cpu::step_rows(const AdamW& rule, const OptimizerStep& step, const OptimizedRows& rows) {
    const float* const g = rows.gradient.floats();
    const std::uint8_t* const keep = rows.mask.empty() ? nullptr : rows.mask.mask_bytes();
    float* const m = rows.moments[0].floats();
    float* const v = rows.moments[1].floats();
    float* const w = rows.weight.floats();
    const AdamW s = rule;
    const AdamCorrection corrected = correction_of(rule, step);
    const float gain1 = 1.0F - s.beta1, gain2 = 1.0F - s.beta2, kept = 1.0F - step.learning_rate * s.weight_decay;
    const float scale = step.gradient_scale;
    const auto run = [&]<bool held>() {
        cpu::parallel_chunks(rows.weight.size(), cpu::elements_per_chunk, [=](std::size_t begin, std::size_t end) {
#pragma omp simd
            for (std::size_t i = begin; i < end; ++i) {
                const float gradient = scale * (held ? cpu::kept_or_zero(keep[i], g[i]) : g[i]);
                m[i] = s.beta1 * m[i] + gain1 * gradient;
                v[i] = s.beta2 * v[i] + gain2 * gradient * gradient;
                const float direction = m[i] / (std::sqrt(v[i]) * corrected.square_root + s.epsilon);
                const float moved = kept * w[i] - corrected.rate * direction;
                w[i] = held ? cpu::kept_or_zero(keep[i], moved) : moved;
            }
        });
    };
    if (keep == nullptr)
        run.template operator()<false>();
    else
        run.template operator()<true>();
}

}  // namespace espalier
