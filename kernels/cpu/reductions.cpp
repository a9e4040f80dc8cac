// Sums over tokens or whole tensors, in orders fixed by the shape.
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/parallel.h"

#include <cmath>
#include <vector>

namespace espalier {

void CpuDevice::column_square_sums(TensorView x, TensorView sums) {
    require(sums.size() == x.columns, "shapes of column_square_sums");
    // Columns are cut over threads; rows are added in runs of 32 so that float32 errors do not grow with T.
    constexpr std::size_t columns_per_chunk = 256, rows_per_run = 32;
    cpu::parallel_chunks(x.columns, columns_per_chunk, [&](std::size_t begin, std::size_t end) {
        float total[columns_per_chunk] = {}, run[columns_per_chunk];
        const std::size_t width = end - begin;
        for (std::size_t first = 0; first < x.rows; first += rows_per_run) {
            std::fill_n(run, width, 0.0F);
            for (std::size_t row = first; row < std::min(x.rows, first + rows_per_run); ++row) {
                const float* const in = x.floats() + row * x.columns + begin;
#pragma omp simd
                for (std::size_t j = 0; j < width; ++j) run[j] += in[j] * in[j];
            }
#pragma omp simd
            for (std::size_t j = 0; j < width; ++j) total[j] += run[j];
        }
        std::copy_n(total, width, sums.floats() + begin);
    });
}

double CpuDevice::square_sum(TensorView x) {
    const float* const in = x.floats();
    return cpu::parallel_sum<double>(x.size(), cpu::elements_per_chunk, [=](std::size_t begin, std::size_t end) {
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (std::size_t i = begin; i < end; ++i) sum += static_cast<double>(in[i]) * static_cast<double>(in[i]);
        return sum;
    });
}

double CpuDevice::squared_error(TensorView y, TensorView target) {
    require(y.size() == target.size(), "shapes of squared_error");
    const float* const a = y.floats();
    const float* const b = target.floats();
    return cpu::parallel_sum<double>(y.size(), cpu::elements_per_chunk, [=](std::size_t begin, std::size_t end) {
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (std::size_t i = begin; i < end; ++i) {
            const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
            sum += difference * difference;
        }
        return sum;
    });
}

double CpuDevice::squared_error_gradient(TensorView target, TensorView y) {
    require(y.size() == target.size(), "shapes of squared_error_gradient");
    const float* const f0 = target.floats();
    float* const values = y.floats();
    return cpu::parallel_sum<double>(y.size(), cpu::elements_per_chunk, [=](std::size_t begin, std::size_t end) {
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (std::size_t i = begin; i < end; ++i) {
            const float difference = values[i] - f0[i];
            sum += static_cast<double>(difference) * static_cast<double>(difference);
            values[i] = 2.0F * difference;
        }
        return sum;
    });
}

std::size_t CpuDevice::count_nonfinite(TensorView x) {
    const float* const in = x.floats();
    return cpu::parallel_sum<std::size_t>(x.size(), cpu::elements_per_chunk, [=](std::size_t begin, std::size_t end) {
        std::size_t count = 0;
#pragma omp simd reduction(+ : count)
        for (std::size_t i = begin; i < end; ++i) count += std::isfinite(in[i]) ? 0U : 1U;
        return count;
    });
}

}  // namespace espalier
