// RMSNorm by row: y = x * weight / sqrt(mean(x^2) + epsilon), and its backward pass.
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/parallel.h"

#include <algorithm>
#include <cmath>

namespace espalier {

void CpuDevice::rms_norm(TensorView x, TensorView weight, float epsilon, TensorView y, TensorView inverse_rms) {
    require(weight.size() == x.columns && y.size() == x.size() && inverse_rms.size() >= x.rows, "shapes of rms_norm");
    const std::size_t n = x.columns;
    const float* const w = weight.floats();
    cpu::parallel_chunks(x.rows, cpu::rows_per_chunk(n), [&](std::size_t begin, std::size_t end) {
        for (std::size_t row = begin; row < end; ++row) {
            const float* const in = x.floats() + row * n;
            float* const out = y.floats() + row * n;
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (std::size_t j = 0; j < n; ++j) sum += in[j] * in[j];
            const float scale = 1.0F / std::sqrt(sum / static_cast<float>(n) + epsilon);
            inverse_rms.floats()[row] = scale;
#pragma omp simd
            for (std::size_t j = 0; j < n; ++j) out[j] = in[j] * scale * w[j];
        }
    });
}

void CpuDevice::rms_norm_backward(TensorView x, TensorView weight, TensorView inverse_rms, TensorView dy,
                                  bool accumulate, TensorView dx) {
    require(weight.size() == x.columns && dy.size() == x.size() && dx.size() == x.size(),
            "shapes of rms_norm_backward");
    const std::size_t n = x.columns;
    const float* const w = weight.floats();
    cpu::parallel_chunks(x.rows, cpu::rows_per_chunk(n), [&](std::size_t begin, std::size_t end) {
        for (std::size_t row = begin; row < end; ++row) {
            const float* const in = x.floats() + row * n;
            const float* const gradient = dy.floats() + row * n;
            float* const out = dx.floats() + row * n;
            const float scale = inverse_rms.floats()[row];
            // With u = dy * w: dx = scale * (u - x * scale^2 * mean(u * x)).
            float dot = 0;
#pragma omp simd reduction(+ : dot)
            for (std::size_t j = 0; j < n; ++j) dot += gradient[j] * w[j] * in[j];
            const float projection = dot * scale * scale / static_cast<float>(n);
#pragma omp simd
            for (std::size_t j = 0; j < n; ++j) {
                const float value = scale * (gradient[j] * w[j] - in[j] * projection);
                out[j] = accumulate ? out[j] + value : value;
            }
        }
    });
}

void CpuDevice::rms_norm_gain_gradient(TensorView x, TensorView inverse_rms, TensorView dy, TensorView gradient) {
    require(dy.size() == x.size() && gradient.size() == x.columns && inverse_rms.size() >= x.rows,
            "shapes of rms_norm_gain_gradient");
    cpu::column_sums(x.rows, x.columns, gradient.floats(), [&](std::size_t row, std::size_t column) {
        const float* const in = x.floats() + row * x.columns + column;
        const float* const of_output = dy.floats() + row * x.columns + column;
        const float scale = inverse_rms.floats()[row];
        return [=](std::size_t j) { return of_output[j] * (in[j] * scale); };
    });
}

}  // namespace espalier
