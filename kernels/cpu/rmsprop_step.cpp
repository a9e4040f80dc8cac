// One RMSprop step on a panel of weights. Called from inside the gradient's panel loop, while the panel is in the L2
// cache.
#include "kernels/cpu/optimizer_rules.h"
#include "kernels/cpu/parallel.h"

#include <cmath>
#include <cstdint>

namespace espalier {

void cpu::step_rows(const Rmsprop& rule, const OptimizerStep& step, const OptimizedRows& rows) {
    const float* const g = rows.gradient.floats();
    const std::uint8_t* const keep = rows.mask.empty() ? nullptr : rows.mask.mask_bytes();
    float* const v = rows.moments[0].floats();
    float* const w = rows.weight.floats();
    const Rmsprop s = rule;
    const float gain = 1.0F - s.decay, rate = step.learning_rate, scale = step.gradient_scale;
    cpu::parallel_chunks(rows.weight.size(), cpu::elements_per_chunk, [=](std::size_t begin, std::size_t end) {
        if (keep == nullptr) {
#pragma omp simd
            for (std::size_t i = begin; i < end; ++i) {
                const float gradient = scale * g[i];
                v[i] = s.decay * v[i] + gain * gradient * gradient;
                w[i] -= rate * gradient / (std::sqrt(v[i]) + s.epsilon);
            }
        } else {
#pragma omp simd
            for (std::size_t i = begin; i < end; ++i) {
                const float held = scale * cpu::kept_or_zero(keep[i], g[i]);
                v[i] = s.decay * v[i] + gain * held * held;
                w[i] = cpu::kept_or_zero(keep[i], w[i] - rate * held / (std::sqrt(v[i]) + s.epsilon));
            }
        }
    });
}

}  // namespace espalier
