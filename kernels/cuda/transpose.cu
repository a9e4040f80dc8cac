// Transposition of a float32 matrix by way of square tiles in shared memory.
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/element.cuh"

namespace espalier {

namespace {

using namespace cuda;

constexpr int tile_size = 32, threads_down = 8;

__global__ void __launch_bounds__(tile_size* threads_down)
    transpose_kernel(const float* x, std::size_t rows, std::size_t columns, float* result) {
    // One column more than used: a warp that reads a column of the tile finds each element in another bank.
    ESPALIER_SHARED_ARRAY(float, tile, tile_size*(tile_size + 1));
    const std::size_t first_row = std::size_t{blockIdx.y} * tile_size,
                      first_column = std::size_t{blockIdx.x} * tile_size;
    ESPALIER_UNROLL
    for (unsigned down = 0; down < tile_size; down += threads_down) {
        const std::size_t row = first_row + down + threadIdx.y, column = first_column + threadIdx.x;
        if (row < rows && column < columns) {
            tile[(down + threadIdx.y) * (tile_size + 1) + threadIdx.x] = x[row * columns + column];
        }
    }
    __syncthreads();
    ESPALIER_UNROLL
    for (unsigned down = 0; down < tile_size; down += threads_down) {
        const std::size_t row = first_column + down + threadIdx.y, column = first_row + threadIdx.x;
        if (row < columns && column < rows) {
            result[row * rows + column] = tile[threadIdx.x * (tile_size + 1) + down + threadIdx.y];
        }
    }
}

}  // namespace

Tensor CudaDevice::transposed(TensorView x) {
    Tensor result = make_tensor(DType::f32, x.columns, x.rows, "transposed factors");
    if (x.size() == 0) return result;
    const auto tiles = [](std::size_t size) { return to_unsigned((size + tile_size - 1) / tile_size); };
    launch("transpose", transpose_kernel, {{tiles(x.columns), tiles(x.rows)}, {tile_size, threads_down}}, stream_,
           x.floats(), x.rows, x.columns, result.view().floats());
    return result;
}

}  // namespace espalier
