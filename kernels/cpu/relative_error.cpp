#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/parallel.h"

namespace espalier {

void CpuDevice::relative_error_gradient(TensorView target, TensorView y, TensorView sum) {
    require(y.rows == target.rows && y.columns == target.columns, "shapes of relative_error_gradient");
    const std::size_t columns = y.columns;
    *sum.doubles() =
        cpu::parallel_sum<double>(y.rows, cpu::rows_per_chunk(columns), [&](std::size_t begin, std::size_t end) {
            double total = 0;
            for (std::size_t row = begin; row < end; ++row) {
                const float* const wanted = target.floats() + row * columns;
                float* const values = y.floats() + row * columns;
                double energy = 0, error = 0;
#pragma omp simd reduction(+ : energy, error)
                for (std::size_t j = 0; j < columns; ++j) {
                    const double w = static_cast<double>(wanted[j]), difference = static_cast<double>(values[j]) - w;
                    energy += w * w;
                    error += difference * difference;
                }
                const double weight = energy > 0 ? 1 / energy : 0;
                total += weight * error;
                const auto factor = static_cast<float>(2 * weight);
#pragma omp simd
                for (std::size_t j = 0; j < columns; ++j) values[j] = factor * (values[j] - wanted[j]);
            }
            return total;
        });
}

}  // namespace espalier
