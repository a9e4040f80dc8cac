// SparseGPT (Frantar & Alistarh 2023): the inverse Gram factor through cuSOLVER in float64, and the column sweep with
// error feedback. Rows are independent of each other, and all sums have the order of the columns, so that bits do not
// depend on which rows a rank holds.
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/working_memory.h"

#include <cusolverDn.h>

#include <algorithm>

namespace espalier {

namespace {

using namespace cuda;

constexpr int threads = 256;
using Counter = unsigned long long;  // CUDA's atomicAdd knows this spelling of 64 bits

// ---- factor

void check_cusolver(cusolverStatus_t status, const char* call) {
    if (status == CUSOLVER_STATUS_SUCCESS) return;
    throw ResourceError(std::string(call) + " failed with cuSOLVER status " + std::to_string(static_cast<int>(status)));
}

/// One block: marks unused inputs, and *shift = damping x mean of the diagonal, unused inputs counting 1.
__global__ void __launch_bounds__(threads)
    mark_dead_inputs_kernel(const float* gram, std::size_t n, float damping, std::uint8_t* dead, double* shift) {
    double trace = 0;
    for (std::size_t j = threadIdx.x; j < n; j += threads) {
        const float diagonal = gram[j * n + j];
        dead[j] = diagonal == 0 ? 1 : 0;
        trace += diagonal == 0 ? 1.0 : static_cast<double>(diagonal);
    }
    trace = reduce_in_block<threads>(trace, 0.0, Sum());
    if (threadIdx.x == 0) *shift = static_cast<double>(damping) * trace / static_cast<double>(n);
}

/// a <- the upper triangle of gram in float64 with the damped diagonal.
__global__ void __launch_bounds__(threads)
    widen_gram_kernel(const float* gram, const std::uint8_t* dead, const double* shift, std::size_t n, double* a) {
    const std::size_t i = std::size_t{blockIdx.x} * threads + threadIdx.x;
    if (i >= n * n) return;
    const std::size_t row = i / n, column = i % n;
    double value = column < row ? 0.0 : static_cast<double>(gram[i]);
    if (row == column) value = (dead[row] != 0 ? 1.0 : value) + *shift;
    a[i] = value;
}

/// gram <- the factor in float32, zeros below the diagonal.
__global__ void __launch_bounds__(threads) narrow_factor_kernel(const double* a, std::size_t n, float* gram) {
    const std::size_t i = std::size_t{blockIdx.x} * threads + threadIdx.x;
    if (i >= n * n) return;
    gram[i] = i % n < i / n ? 0.0F : static_cast<float>(a[i]);
}

/// A cuSOLVER handle with the scratch of one factorisation. Its column-major lower triangle is our upper one, and its
/// L L^T is our U^T U.
class TriangularSolver {
  public:
    TriangularSolver(CudaDevice& device, double* matrix, std::size_t n)
        : device_(device),
          matrix_(matrix),
          n_(static_cast<int>(n)),
          info_(device.make_tensor(DType::f32, 1, 1, working_memory)) {
        check_cusolver(cusolverDnCreate(&handle_), "cusolverDnCreate");
        check_cusolver(cusolverDnSetStream(handle_, static_cast<cudaStream_t>(device.stream())), "cusolverDnSetStream");
        int factor = 0, invert = 0;
        check_cusolver(cusolverDnDpotrf_bufferSize(handle_, triangle, n_, matrix_, n_, &factor),
                       "cusolverDnDpotrf_bufferSize");
        check_cusolver(cusolverDnDpotri_bufferSize(handle_, triangle, n_, matrix_, n_, &invert),
                       "cusolverDnDpotri_bufferSize");
        scratch_size_ = std::max({1, factor, invert});
        scratch_ = device.make_tensor(DType::f64, 1, static_cast<std::size_t>(scratch_size_), working_memory);
    }
    TriangularSolver(const TriangularSolver&) = delete;
    TriangularSolver& operator=(const TriangularSolver&) = delete;
    ~TriangularSolver() { cusolverDnDestroy(handle_); }

    /// matrix <- its Cholesky factor. False when it is not positive definite.
    bool factor() {
        check_cusolver(cusolverDnDpotrf(handle_, triangle, n_, matrix_, n_, scratch_.view().doubles(), scratch_size_,
                                        as<int>(info_)),
                       "cusolverDnDpotrf");
        return succeeded();
    }
    /// A Cholesky factor <- the inverse of its matrix.
    bool invert() {
        check_cusolver(cusolverDnDpotri(handle_, triangle, n_, matrix_, n_, scratch_.view().doubles(), scratch_size_,
                                        as<int>(info_)),
                       "cusolverDnDpotri");
        return succeeded();
    }

  private:
    static constexpr cublasFillMode_t triangle = CUBLAS_FILL_MODE_LOWER;
    bool succeeded() const {
        int info = 0;
        device_.copy_to_host(info_, &info);
        return info == 0;
    }

    CudaDevice& device_;
    double* matrix_;
    int n_;
    Tensor info_, scratch_;
    int scratch_size_ = 0;
    cusolverDnHandle_t handle_ = nullptr;
};

// ---- sweep

constexpr int rows_per_block = 4;  // a warp each

/// Columns [first, first + width) of all rows; of every run of `group` columns `remove` go.
struct Sweep {
    const float* factor;
    const std::uint8_t* dead;
    float* weight;
    std::uint8_t* mask;
    float* errors;  ///< [rows, width]
    Counter* unusable;
    std::size_t rows, columns, first;
    int width, group, remove;
    bool chooses;  ///< otherwise `mask` is given
};

/// The columns of one row while a warp sweeps them, in shared memory.
struct SweptRow {
    float* weights;
    float* scores;
    std::uint8_t* keep;
};

/// Ranks columns [begin, begin + count) by W^2 / U_jj^2, ties by column. Returns the number of non-finite scores, the
/// same on every lane.
__device__ unsigned choose(const Sweep& s, const SweptRow& row, int begin, int count) {
    const int lane = static_cast<int>(threadIdx.x);
    unsigned bad = 0;
    for (int j = begin + lane; j < begin + count; j += warp_size) {
        const std::size_t column = s.first + static_cast<std::size_t>(j);
        const float ratio = row.weights[j] / s.factor[column * s.columns + column];
        row.scores[j] = ratio * ratio;
        bad += isfinite(row.scores[j]) ? 0U : 1U;
    }
    __syncwarp();
    for (int j = begin + lane; j < begin + count; j += warp_size) {
        int smaller = 0;
        for (int k = begin; k < begin + count; ++k) {
            smaller += row.scores[k] < row.scores[j] || (row.scores[k] == row.scores[j] && k < j) ? 1 : 0;
        }
        row.keep[j] = smaller >= s.remove ? 1 : 0;
    }
    __syncwarp();
    return reduce_in_warp(bad, Sum());
}

__global__ void __launch_bounds__(warp_size* rows_per_block) sweep_kernel(Sweep s) {
    const int lane = static_cast<int>(threadIdx.x);
    const std::size_t row_index = std::size_t{blockIdx.x} * rows_per_block + threadIdx.y;
    if (row_index >= s.rows) return;
    float* const floats = dynamic_shared<float>();
    auto* const bytes = reinterpret_cast<std::uint8_t*>(floats + 2 * rows_per_block * s.width);
    const SweptRow row{floats + threadIdx.y * s.width, floats + (rows_per_block + threadIdx.y) * s.width,
                       bytes + threadIdx.y * s.width};
    float* const stored = s.weight + row_index * s.columns + s.first;
    std::uint8_t* const kept = s.mask + row_index * s.columns + s.first;
    for (int j = lane; j < s.width; j += warp_size) {
        row.weights[j] = s.dead[s.first + static_cast<std::size_t>(j)] != 0 ? 0.0F : stored[j];
        if (!s.chooses) row.keep[j] = kept[j];
    }
    __syncwarp();
    for (int j = 0; j < s.width; ++j) {
        if (s.chooses && j % s.group == 0) {
            const unsigned bad = choose(s, row, j, s.group);
            if (bad != 0) {
                if (lane == 0) atomicAdd(s.unusable, Counter{bad});
                return;
            }
        }
        const std::size_t column = s.first + static_cast<std::size_t>(j);
        const float* const u = s.factor + column * s.columns + s.first;
        const float error = row.keep[j] != 0 ? 0.0F : row.weights[j] / u[j];
        __syncwarp();
        if (lane == 0) s.errors[row_index * s.width + j] = error;
        if (row.keep[j] != 0) continue;  // the same on every lane
        if (lane == 0) row.weights[j] = 0.0F;
        for (int k = j + 1 + lane; k < s.width; k += warp_size) row.weights[k] -= error * u[k];
        __syncwarp();
    }
    for (int j = lane; j < s.width; j += warp_size) {
        stored[j] = row.weights[j];
        if (s.chooses) kept[j] = row.keep[j];
    }
}

/// weight[row, first + width …] -= errors [row, width] U[first …, first + width …], a tile of 64 x 64 a block.
constexpr int tile = 64, tile_threads = 16, per_thread = tile / tile_threads;
__global__ void __launch_bounds__(tile_threads* tile_threads) spread_errors_kernel(Sweep s) {
    ESPALIER_SHARED_ARRAY(float, errors, tile* tile_threads);
    ESPALIER_SHARED_ARRAY(float, factors, tile* tile_threads);
    const std::size_t row = blockIdx.y * std::size_t{tile};
    const std::size_t column = s.first + static_cast<std::size_t>(s.width) + blockIdx.x * std::size_t{tile};
    const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y), thread = y * tile_threads + x;
    float sums[per_thread][per_thread] = {};
    for (int begin = 0; begin < s.width; begin += tile_threads) {
        for (int i = thread; i < tile * tile_threads; i += tile_threads * tile_threads) {
            const int k = begin + i % tile_threads;
            const std::size_t r = row + static_cast<std::size_t>(i / tile_threads);
            errors[i] = k < s.width && r < s.rows ? s.errors[r * s.width + k] : 0.0F;
            const int k_of_factor = begin + i / tile;
            const std::size_t c = column + static_cast<std::size_t>(i % tile);
            factors[i] = k_of_factor < s.width && c < s.columns
                             ? s.factor[(s.first + static_cast<std::size_t>(k_of_factor)) * s.columns + c]
                             : 0.0F;
        }
        __syncthreads();
        for (int k = 0; k < tile_threads; ++k) {
            ESPALIER_UNROLL
            for (int i = 0; i < per_thread; ++i) {
                ESPALIER_UNROLL
                for (int j = 0; j < per_thread; ++j) {
                    sums[i][j] +=
                        errors[(y + i * tile_threads) * tile_threads + k] * factors[k * tile + x + j * tile_threads];
                }
            }
        }
        __syncthreads();
    }
    for (int i = 0; i < per_thread; ++i) {
        for (int j = 0; j < per_thread; ++j) {
            const std::size_t r = row + static_cast<std::size_t>(y + i * tile_threads);
            const std::size_t c = column + static_cast<std::size_t>(x + j * tile_threads);
            if (r < s.rows && c < s.columns) s.weight[r * s.columns + c] -= sums[i][j];
        }
    }
}

}  // namespace

bool CudaDevice::factor_inverse_gram(float damping, TensorView gram, TensorView dead_inputs) {
    require(gram.rows == gram.columns && dead_inputs.size() == gram.rows, "shapes of factor_inverse_gram");
    const std::size_t n = gram.rows;
    const unsigned blocks = to_unsigned((n * n + threads - 1) / threads);
    const Tensor a = make_tensor(DType::f64, n, n, working_memory),
                 shift = make_tensor(DType::f64, 1, 1, working_memory);
    launch("factor_inverse_gram", mark_dead_inputs_kernel, {1, threads}, stream_, gram.floats(), n, damping,
           dead_inputs.mask_bytes(), shift.view().doubles());
    launch("factor_inverse_gram", widen_gram_kernel, {blocks, threads}, stream_, gram.floats(),
           dead_inputs.mask_bytes(), shift.view().doubles(), n, a.view().doubles());
    // float64: with 1 % damping the matrix's condition costs float32 about half of its digits.
    TriangularSolver solver(*this, a.view().doubles(), n);
    if (!solver.factor() || !solver.invert() || !solver.factor()) return false;
    launch("factor_inverse_gram", narrow_factor_kernel, {blocks, threads}, stream_, a.view().doubles(), n,
           gram.floats());
    const auto cube = static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n);
    flops_ += cube / 3 + 2 * cube / 3 + cube / 3;
    return true;
}

void CudaDevice::sparsegpt_sweep(TensorView factor, TensorView dead_inputs, const PruningPattern& pattern,
                                 SweepMask origin, TensorView weight, TensorView mask, TensorView unusable) {
    const std::size_t n = weight.columns, width = sparsegpt_sweep_columns(pattern);
    require(factor.rows == n && factor.columns == n && mask.size() == weight.size() && dead_inputs.size() == n,
            "shapes of sparsegpt_sweep");
    require(!pattern.structured() || n % pattern.group == 0, "a group size that divides the width");
    if (weight.size() == 0) return;
    const Tensor errors = make_tensor(DType::f32, weight.rows, width, working_memory);
    for (std::size_t first = 0; first < n; first += width) {
        const std::size_t last = std::min(n, first + width), count = last - first;
        // Unstructured: exactly floor(in x sparsity) a row in total; each block takes what the running floor grows by.
        const std::size_t remove = pattern.structured()
                                       ? pattern.group - pattern.keep
                                       : pattern.removed_per_row(last) - pattern.removed_per_row(first);
        const std::size_t group = pattern.structured() ? pattern.group : count;
        const Sweep sweep{factor.floats(),
                          dead_inputs.mask_bytes(),
                          weight.floats(),
                          mask.mask_bytes(),
                          errors.view().floats(),
                          reinterpret_cast<Counter*>(unusable.counts()),
                          weight.rows,
                          n,
                          first,
                          static_cast<int>(count),
                          static_cast<int>(group),
                          static_cast<int>(remove),
                          origin == SweepMask::chosen};
        const std::size_t shared = rows_per_block * count * (2 * sizeof(float) + 1);
        const unsigned blocks = to_unsigned((weight.rows + rows_per_block - 1) / rows_per_block);
        launch("sparsegpt_sweep", sweep_kernel, {blocks, dim3(warp_size, rows_per_block), shared}, stream_, sweep);
        if (last == n) break;
        const dim3 tiles(to_unsigned((n - last + tile - 1) / tile), to_unsigned((weight.rows + tile - 1) / tile));
        launch("sparsegpt_sweep", spread_errors_kernel, {tiles, dim3(tile_threads, tile_threads)}, stream_, sweep);
    }
    flops_ += static_cast<double>(weight.size()) * static_cast<double>(n);
}

}  // namespace espalier
