// Sums over tokens or whole tensors. Every sum is cut by shape alone: parts are written down and added in order.
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/working_memory.h"

#include <algorithm>

namespace espalier {

namespace {

using namespace cuda;

constexpr int threads = 256;

// ---- column sums

/// Few threads to a block: a sample has only a few thousand columns, and they should keep every multiprocessor busy.
constexpr int column_threads = 64;

/// sums[run, column] = sum of squares over the rows of one run; a thread takes `count` columns.
template <int count, typename T>
__global__ void __launch_bounds__(column_threads)
    run_square_sums_kernel(const T* x, std::size_t rows, std::size_t columns, float* sums) {
    const std::size_t column = (std::size_t{blockIdx.x} * column_threads + threadIdx.x) * count;
    const std::size_t first = blockIdx.y * rows_of_square_sum;
    if (column >= columns) return;
    const std::size_t last = first + rows_of_square_sum < rows ? first + rows_of_square_sum : rows;
    float sum[count] = {};
    const auto add_row = [&](std::size_t row) {
        float values[count];
        load<count>(x + row * columns + column, values);
        ESPALIER_UNROLL
        for (int j = 0; j < count; ++j) sum[j] += values[j] * values[j];
    };
    if (last - first == rows_of_square_sum) {
        ESPALIER_UNROLL
        for (std::size_t i = 0; i < rows_of_square_sum; ++i) add_row(first + i);
    } else {
        for (std::size_t row = first; row < last; ++row) add_row(row);
    }
    store<count>(sums + blockIdx.y * columns + column, sum);
}

/// The same of the products of which the gradient of a norm's gain is the sum.
template <typename T>
__global__ void __launch_bounds__(column_threads)
    run_gain_gradients_kernel(const T* x, const float* inverse_rms, const T* dy, std::size_t rows, std::size_t columns,
                              float* sums) {
    // Runs along x: norms of heads have as many rows as there are heads of all tokens.
    const std::size_t column = std::size_t{blockIdx.y} * column_threads + threadIdx.x;
    const std::size_t first = blockIdx.x * rows_of_square_sum;
    if (column >= columns) return;
    const std::size_t last = first + rows_of_square_sum < rows ? first + rows_of_square_sum : rows;
    float sum = 0;
    for (std::size_t row = first; row < last; ++row) {
        const std::size_t i = row * columns + column;
        sum += to_float(dy[i]) * (to_float(x[i]) * inverse_rms[row]);
    }
    sums[blockIdx.x * columns + column] = sum;
}

/// A column's sum over all rows, in row order.
template <typename Total>
__device__ Total column_sum(const float* x, std::size_t rows, std::size_t columns, std::size_t column) {
    constexpr std::size_t at_once = 16;  // loads under way before the first is added
    Total total = 0;
    std::size_t row = 0;
    for (; row + at_once <= rows; row += at_once) {
        float values[at_once];
        ESPALIER_UNROLL
        for (std::size_t i = 0; i < at_once; ++i) values[i] = x[(row + i) * columns + column];
        ESPALIER_UNROLL
        for (std::size_t i = 0; i < at_once; ++i) total += static_cast<Total>(values[i]);
    }
    for (; row < rows; ++row) total += static_cast<Total>(x[row * columns + column]);
    return total;
}

__global__ void __launch_bounds__(column_threads)
    add_runs_kernel(const float* runs, std::size_t count, std::size_t columns, float* sums) {
    const std::size_t column = std::size_t{blockIdx.x} * column_threads + threadIdx.x;
    if (column < columns) sums[column] = column_sum<float>(runs, count, columns, column);
}

__global__ void __launch_bounds__(column_threads)
    column_sum_roots_kernel(const float* x, std::size_t rows, std::size_t columns, double scale, float* roots) {
    const std::size_t column = std::size_t{blockIdx.x} * column_threads + threadIdx.x;
    if (column < columns) {
        roots[column] = static_cast<float>(sqrt(column_sum<double>(x, rows, columns, column) * scale));
    }
}

// ---- float64 sums over a tensor

struct Square {
    const float* x;
    template <int count>
    __device__ double add(std::size_t i, double sum) const {
        float a[count];
        load<count>(x + i, a);
        ESPALIER_UNROLL
        for (int j = 0; j < count; ++j) sum += static_cast<double>(a[j]) * static_cast<double>(a[j]);
        return sum;
    }
};

struct SquaredDifference {
    const float* y;
    const float* target;
    template <int count>
    __device__ double add(std::size_t i, double sum) const {
        float a[count], b[count];
        load<count>(y + i, a);
        load<count>(target + i, b);
        ESPALIER_UNROLL
        for (int j = 0; j < count; ++j) {
            const double difference = static_cast<double>(a[j]) - static_cast<double>(b[j]);
            sum += difference * difference;
        }
        return sum;
    }
};

/// parts[block] = the block's share of the sum; blocks take elements with a stride, so that their number is bounded.
template <typename Term>
__global__ void __launch_bounds__(threads)
    sum_parts_kernel(std::size_t elements, bool aligned, Term term, double* parts) {
    const std::size_t thread = std::size_t{blockIdx.x} * threads + threadIdx.x;
    const std::size_t stride = std::size_t{gridDim.x} * threads;
    const std::size_t packs = aligned ? elements / wide : 0;
    double sum = 0;
    for (std::size_t i = thread; i < packs; i += stride) sum = term.template add<wide>(i * wide, sum);
    for (std::size_t i = packs * wide + thread; i < elements; i += stride) sum = term.template add<1>(i, sum);
    sum = reduce_in_block<threads>(sum, 0.0, Sum());
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(threads) add_parts_kernel(const double* parts, unsigned count, double* total) {
    double sum = 0;
    for (unsigned i = threadIdx.x; i < count; i += threads) sum += parts[i];
    sum = reduce_in_block<threads>(sum, 0.0, Sum());
    if (threadIdx.x == 0) *total = sum;
}

// ---- counts

using Counter = unsigned long long;  // CUDA's atomicAdd knows this spelling of 64 bits

/// *count += the counts of all threads of the block. Whole numbers: the order does not matter.
__device__ void add_to_counter(unsigned found, Counter* count) {
    found = reduce_in_warp(found, Sum());
    if (threadIdx.x % warp_size == 0 && found != 0) atomicAdd(count, Counter{found});
}

/// look<values>(i) for all elements, in packs as far as they are aligned, spread over the threads of the grid.
template <typename Look>
__device__ void look_at_all(std::size_t elements, bool aligned, const Look& look) {
    const std::size_t thread = std::size_t{blockIdx.x} * threads + threadIdx.x;
    const std::size_t stride = std::size_t{gridDim.x} * threads;
    const std::size_t packs = aligned ? elements / wide : 0;
    for (std::size_t i = thread; i < packs; i += stride) look.template operator()<wide>(i * wide);
    for (std::size_t i = packs * wide + thread; i < elements; i += stride) look.template operator()<1>(i);
}

struct IsNonfinite {
    __device__ bool operator()(float x) const { return !isfinite(x); }
};
struct IsZero {
    __device__ bool operator()(float x) const { return x == 0.0F; }
};

template <typename Property, typename T>
__global__ void __launch_bounds__(threads)
    count_kernel(const T* x, std::size_t elements, bool aligned, Counter* count) {
    unsigned found = 0;
    look_at_all(elements, aligned, [&]<int values>(std::size_t i) {
        float a[values];
        load<values>(x + i, a);
        ESPALIER_UNROLL
        for (int j = 0; j < values; ++j) found += Property()(a[j]) ? 1U : 0U;
    });
    add_to_counter(found, count);
}

__global__ void __launch_bounds__(threads)
    compare_masks_kernel(const std::uint8_t* mask, const std::uint8_t* before, std::size_t elements, bool aligned,
                         Counter* removed, Counter* changed) {
    unsigned zeros = 0, differences = 0;
    look_at_all(elements, aligned, [&]<int values>(std::size_t i) {
        std::uint8_t now[values], then[values];
        load_mask<values>(mask + i, now);
        load_mask<values>(before + i, then);
        ESPALIER_UNROLL
        for (int j = 0; j < values; ++j) {
            zeros += now[j] == 0 ? 1U : 0U;
            differences += now[j] != then[j] ? 1U : 0U;
        }
    });
    add_to_counter(zeros, removed);
    add_to_counter(differences, changed);
}

template <typename T>
__global__ void __launch_bounds__(threads)
    count_unchanged_kernel(const T* weight, const T* before, const std::uint8_t* mask, std::size_t elements,
                           bool aligned, Counter* kept, Counter* unchanged) {
    unsigned survivors = 0, same = 0;
    look_at_all(elements, aligned, [&]<int values>(std::size_t i) {
        float now[values], then[values];
        std::uint8_t is_kept[values];
        load<values>(weight + i, now);
        load<values>(before + i, then);
        load_mask<values>(mask + i, is_kept);
        ESPALIER_UNROLL
        for (int j = 0; j < values; ++j) {
            survivors += is_kept[j] != 0 ? 1U : 0U;
            same += is_kept[j] != 0 && now[j] == then[j] ? 1U : 0U;
        }
    });
    add_to_counter(survivors, kept);
    add_to_counter(same, unchanged);
}

Counter* counter(TensorView count) {
    static_assert(sizeof(Counter) == sizeof(std::uint64_t));
    return reinterpret_cast<Counter*>(count.counts());
}

/// *sum = the sum of all terms.
template <typename Term>
void sum_terms(CudaDevice& device, const char* name, std::size_t elements, bool aligned, cudaStream_t stream,
               const Term& term, TensorView sum) {
    if (elements == 0) {
        device.fill_zero(sum);
        return;
    }
    const unsigned blocks = std::min(to_unsigned(most_parts_of_a_sum), elementwise_blocks(elements));
    const Tensor parts = device.make_tensor(DType::f64, 1, blocks, working_memory);
    launch(name, sum_parts_kernel<Term>, {blocks, threads}, stream, elements, aligned, term, parts.view().doubles());
    launch(name, add_parts_kernel, {1, threads}, stream, parts.view().doubles(), blocks, sum.doubles());
}

}  // namespace

void CudaDevice::column_square_sums(TensorView x, TensorView sums) {
    require(sums.size() == x.columns, "shapes of column_square_sums");
    if (x.size() == 0) {
        fill_zero(sums);
        return;
    }
    const std::size_t runs = (x.rows + rows_of_square_sum - 1) / rows_of_square_sum;
    const Tensor of_runs = make_tensor(DType::f32, runs, x.columns, working_memory);
    const auto blocks_across = [&](std::size_t count) {
        const std::size_t columns = column_threads * count;
        return to_unsigned((x.columns + columns - 1) / columns);
    };
    with_type(x.dtype, [&]<typename T>() {
        const auto run = [&]<int count>() {
            launch("column_square_sums", run_square_sums_kernel<count, T>,
                   {{blocks_across(count), to_unsigned(runs)}, column_threads}, stream_, as<T>(x), x.rows, x.columns,
                   of_runs.view().floats());
        };
        if (x.columns % wide == 0 && are_aligned({x.data}))
            run.template operator()<wide>();
        else
            run.template operator()<1>();
    });
    launch("column_square_sums", add_runs_kernel, {blocks_across(1), column_threads}, stream_, of_runs.view().floats(),
           runs, x.columns, sums.floats());
}

void CudaDevice::rms_norm_gain_gradient(TensorView x, TensorView inverse_rms, TensorView dy, TensorView gradient) {
    require(dy.size() == x.size() && gradient.size() == x.columns && inverse_rms.size() >= x.rows,
            "shapes of rms_norm_gain_gradient");
    require(x.dtype == dy.dtype, "types of rms_norm_gain_gradient");
    const unsigned blocks = to_unsigned((x.columns + column_threads - 1) / column_threads);
    const std::size_t runs = (x.rows + rows_of_square_sum - 1) / rows_of_square_sum;
    const Tensor sums_of_runs = make_tensor(DType::f32, runs, x.columns, working_memory);
    with_type(x.dtype, [&]<typename T>() {
        launch("run_gain_gradients", run_gain_gradients_kernel<T>, {{to_unsigned(runs), blocks}, column_threads},
               stream_, as<T>(x), inverse_rms.floats(), as<T>(dy), x.rows, x.columns, sums_of_runs.view().floats());
    });
    launch("add_runs", add_runs_kernel, {blocks, column_threads}, stream_, sums_of_runs.view().floats(), runs,
           x.columns, gradient.floats());
}

void CudaDevice::column_sum_roots(TensorView x, double scale, TensorView roots) {
    require(roots.size() == x.columns, "shapes of column_sum_roots");
    if (x.columns == 0) return;
    launch("column_sum_roots", column_sum_roots_kernel,
           {to_unsigned((x.columns + column_threads - 1) / column_threads), column_threads}, stream_, x.floats(),
           x.rows, x.columns, scale, roots.floats());
}

void CudaDevice::square_sum(TensorView x, TensorView sum) {
    sum_terms(*this, "square_sum", x.size(), are_aligned({x.data}), stream_, Square{x.floats()}, sum);
}

void CudaDevice::squared_error(TensorView y, TensorView target, TensorView sum) {
    require(y.size() == target.size(), "shapes of squared_error");
    sum_terms(*this, "squared_error", y.size(), are_aligned({y.data, target.data}), stream_,
              SquaredDifference{y.floats(), target.floats()}, sum);
}

void CudaDevice::count_nonfinite(TensorView x, TensorView count) {
    if (x.size() == 0) return;
    with_type(x.dtype, [&]<typename T>() {
        launch("count_nonfinite", count_kernel<IsNonfinite, T>, {elementwise_blocks(x.size()), threads}, stream_,
               as<T>(x), x.size(), are_aligned({x.data}), counter(count));
    });
}

void CudaDevice::count_zeros(TensorView x, TensorView count) {
    if (x.size() == 0) return;
    with_type(x.dtype, [&]<typename T>() {
        launch("count_zeros", count_kernel<IsZero, T>, {elementwise_blocks(x.size()), threads}, stream_, as<T>(x),
               x.size(), are_aligned({x.data}), counter(count));
    });
}

void CudaDevice::compare_masks(TensorView mask, TensorView before, TensorView removed, TensorView changed) {
    require(mask.size() == before.size(), "shapes of compare_masks");
    if (mask.size() == 0) return;
    launch("compare_masks", compare_masks_kernel, {elementwise_blocks(mask.size()), threads}, stream_,
           mask.mask_bytes(), before.mask_bytes(), mask.size(), are_aligned({mask.data, before.data}), counter(removed),
           counter(changed));
}

void CudaDevice::count_unchanged(TensorView weight, TensorView before, TensorView mask, TensorView kept,
                                 TensorView unchanged) {
    require(weight.size() == before.size() && weight.size() == mask.size() && weight.dtype == before.dtype,
            "shapes of count_unchanged");
    if (weight.size() == 0) return;
    with_type(weight.dtype, [&]<typename T>() {
        launch("count_unchanged", count_unchanged_kernel<T>, {elementwise_blocks(weight.size()), threads}, stream_,
               as<T>(weight), as<T>(before), mask.mask_bytes(), weight.size(),
               are_aligned({weight.data, before.data, mask.data}), counter(kept), counter(unchanged));
    });
}

}  // namespace espalier
