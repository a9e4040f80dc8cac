// Errors of tokens relative to what their outputs should be: a block takes a row, and one adds the rows in order.
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/working_memory.h"

namespace espalier {

namespace {

using namespace cuda;

constexpr int error_threads = 256;

__global__ void __launch_bounds__(error_threads)
    relative_error_kernel(const float* target, std::size_t columns, float* y, double* of_rows) {
    const float* const wanted = target + std::size_t{blockIdx.x} * columns;
    float* const values = y + std::size_t{blockIdx.x} * columns;
    double energy = 0, error = 0;
    for (std::size_t j = threadIdx.x; j < columns; j += error_threads) {
        const double w = wanted[j], difference = static_cast<double>(values[j]) - w;
        energy += w * w;
        error += difference * difference;
    }
    energy = reduce_in_block<error_threads>(energy, 0.0, Sum());
    error = reduce_in_block<error_threads>(error, 0.0, Sum());
    const double weight = energy > 0 ? 1 / energy : 0;
    if (threadIdx.x == 0) of_rows[blockIdx.x] = weight * error;
    const float factor = static_cast<float>(2 * weight);
    for (std::size_t j = threadIdx.x; j < columns; j += error_threads) values[j] = factor * (values[j] - wanted[j]);
}

__global__ void __launch_bounds__(error_threads) add_rows_kernel(const double* of_rows, std::size_t rows, double* sum) {
    double total = 0;
    for (std::size_t row = threadIdx.x; row < rows; row += error_threads) total += of_rows[row];
    total = reduce_in_block<error_threads>(total, 0.0, Sum());
    if (threadIdx.x == 0) *sum = total;
}

}  // namespace

void CudaDevice::relative_error_gradient(TensorView target, TensorView y, TensorView sum) {
    require(y.rows == target.rows && y.columns == target.columns, "shapes of relative_error_gradient");
    if (y.rows == 0) return fill_zero(sum);
    const Tensor of_rows = make_tensor(DType::f64, 1, y.rows, working_memory);
    launch("relative_error_gradient", relative_error_kernel, {to_unsigned(y.rows), error_threads}, stream_,
           target.floats(), y.columns, y.floats(), of_rows.view().doubles());
    launch("relative_error_gradient", add_rows_kernel, {1, error_threads}, stream_, of_rows.view().doubles(), y.rows,
           sum.doubles());
}

}  // namespace espalier
