// Sums over tokens or whole tensors, in orders fixed by the shape.
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/parallel.h"

#include <algorithm>
#include <cmath>

namespace espalier {

namespace {

/// How many of the indices 0 … elements-1 `holds` is true for.
template <typename Holds>
std::size_t count_where(std::size_t elements, const Holds& holds) {
    return cpu::parallel_sum<std::size_t>(elements, 4 * cpu::elements_per_chunk,
                                          [&](std::size_t begin, std::size_t end) {
                                              std::size_t found = 0;
                                              for (std::size_t i = begin; i < end; ++i) found += holds(i) ? 1U : 0U;
                                              return found;
                                          });
}

}  // namespace

void CpuDevice::column_square_sums(TensorView x, TensorView sums) {
    require(sums.size() == x.columns, "shapes of column_square_sums");
    cpu::column_sums(x.rows, x.columns, sums.floats(), [&](std::size_t row, std::size_t column) {
        const float* const in = x.floats() + row * x.columns + column;
        return [in](std::size_t j) { return in[j] * in[j]; };
    });
}

void CpuDevice::column_sum_roots(TensorView x, double scale, TensorView roots) {
    require(roots.size() == x.columns, "shapes of column_sum_roots");
    constexpr std::size_t columns_per_chunk = 256;
    cpu::parallel_chunks(x.columns, columns_per_chunk, [&](std::size_t begin, std::size_t end) {
        double total[columns_per_chunk] = {};
        const std::size_t width = end - begin;
        for (std::size_t row = 0; row < x.rows; ++row) {
            const float* const in = x.floats() + row * x.columns + begin;
#pragma omp simd
            for (std::size_t j = 0; j < width; ++j) total[j] += static_cast<double>(in[j]);
        }
        float* const out = roots.floats() + begin;
        for (std::size_t j = 0; j < width; ++j) out[j] = static_cast<float>(std::sqrt(total[j] * scale));
    });
}

void CpuDevice::square_sum(TensorView x, TensorView sum) {
    const float* const in = x.floats();
    *sum.doubles() =
        cpu::parallel_sum<double>(x.size(), cpu::elements_per_chunk, [=](std::size_t begin, std::size_t end) {
            double sum = 0;
#pragma omp simd reduction(+ : sum)
            for (std::size_t i = begin; i < end; ++i) sum += static_cast<double>(in[i]) * static_cast<double>(in[i]);
            return sum;
        });
}

void CpuDevice::squared_error(TensorView y, TensorView target, TensorView sum) {
    require(y.size() == target.size(), "shapes of squared_error");
    const float* const a = y.floats();
    const float* const b = target.floats();
    *sum.doubles() =
        cpu::parallel_sum<double>(y.size(), cpu::elements_per_chunk, [=](std::size_t begin, std::size_t end) {
            double sum = 0;
#pragma omp simd reduction(+ : sum)
            for (std::size_t i = begin; i < end; ++i) {
                const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
                sum += difference * difference;
            }
            return sum;
        });
}

void CpuDevice::count_nonfinite(TensorView x, TensorView count) {
    const float* const in = x.floats();
    *count.counts() +=
        cpu::parallel_sum<std::size_t>(x.size(), cpu::elements_per_chunk, [=](std::size_t begin, std::size_t end) {
            std::size_t found = 0;
#pragma omp simd reduction(+ : found)
            for (std::size_t i = begin; i < end; ++i) found += std::isfinite(in[i]) ? 0U : 1U;
            return found;
        });
}

void CpuDevice::count_zeros(TensorView x, TensorView count) {
    const float* const in = x.floats();
    *count.counts() += count_where(x.size(), [=](std::size_t i) { return in[i] == 0.0F; });
}

void CpuDevice::compare_masks(TensorView mask, TensorView before, TensorView removed, TensorView changed) {
    require(mask.size() == before.size(), "shapes of compare_masks");
    const std::uint8_t* const now = mask.mask_bytes();
    const std::uint8_t* const then = before.mask_bytes();
    *removed.counts() += count_where(mask.size(), [=](std::size_t i) { return now[i] == 0; });
    *changed.counts() += count_where(mask.size(), [=](std::size_t i) { return now[i] != then[i]; });
}

void CpuDevice::count_unchanged(TensorView weight, TensorView before, TensorView mask, TensorView kept,
                                TensorView unchanged) {
    require(weight.size() == before.size() && weight.size() == mask.size(), "shapes of count_unchanged");
    const std::uint8_t* const is_kept = mask.mask_bytes();
    const float *const now = weight.floats(), *const then = before.floats();
    *kept.counts() += count_where(mask.size(), [=](std::size_t i) { return is_kept[i] != 0; });
    *unchanged.counts() +=
        count_where(mask.size(), [=](std::size_t i) { return is_kept[i] != 0 && now[i] == then[i]; });
}

}  // namespace espalier
