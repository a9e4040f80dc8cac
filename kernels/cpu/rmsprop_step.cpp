// One RMSprop step on a panel of weights. Called from inside the gradient's panel loop, while the panel is in the L2
// cache.
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/parallel.h"

#include <cmath>

namespace espalier {

void CpuDevice::rmsprop_step(const RmspropStep& step, TensorView gradient, TensorView mask, TensorView square_average,
                             TensorView weight) {
    require(gradient.size() == weight.size() && square_average.size() == weight.size(), "shapes of rmsprop_step");
    require(mask.empty() || mask.size() == weight.size(), "mask of rmsprop_step");
    const float* const g = gradient.floats();
    const std::uint8_t* const keep = mask.empty() ? nullptr : mask.mask_bytes();
    float* const v = square_average.floats();
    float* const w = weight.floats();
    const float gain = 1.0F - step.decay;
    const RmspropStep s = step;
    cpu::parallel_chunks(weight.size(), cpu::elements_per_chunk, [=](std::size_t begin, std::size_t end) {
        if (keep == nullptr) {
#pragma omp simd
            for (std::size_t i = begin; i < end; ++i) {
                v[i] = s.decay * v[i] + gain * g[i] * g[i];
                w[i] -= s.learning_rate * g[i] / (std::sqrt(v[i]) + s.epsilon);
            }
        } else {
#pragma omp simd
            for (std::size_t i = begin; i < end; ++i) {
                const float held = keep[i] != 0 ? g[i] : 0.0F;
                v[i] = s.decay * v[i] + gain * held * held;
                const float moved = w[i] - s.learning_rate * held / (std::sqrt(v[i]) + s.epsilon);
                w[i] = keep[i] != 0 ? moved : 0.0F;
            }
        }
    });
}

}  // namespace espalier
