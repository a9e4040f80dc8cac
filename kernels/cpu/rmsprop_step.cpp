// One RMSprop step on a panel of weights. Called from inside the gradient's panel loop, while the panel is in the L2
// cache.
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/parallel.h"

#include <bit>
#include <cmath>
#include <cstdint>

namespace espalier {

namespace {

/// keep ? value : +0.0, without a branch.
float select(std::uint8_t keep, float value) {
    const std::uint32_t bits = keep != 0 ? ~std::uint32_t{0} : 0;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) & bits);
}

}  // namespace

void CpuDevice::rmsprop_step(const RmspropStep& step, TensorView gradient, TensorView mask, TensorView square_average,
                             TensorView weight, TensorView rounded) {
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
                const float held = select(keep[i], g[i]);
                v[i] = s.decay * v[i] + gain * held * held;
                w[i] = select(keep[i], w[i] - s.learning_rate * held / (std::sqrt(v[i]) + s.epsilon));
            }
        }
    });
    if (!rounded.empty()) convert(weight, rounded);
}

}  // namespace espalier
