// RMSNorm by row: y = x * weight / sqrt(mean(x^2) + epsilon), and its backward pass. A row is read twice, the second
// time from the caches.
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/reduce.cuh"

namespace espalier {

namespace {

using namespace cuda;

constexpr int threads = 256;

/// Threads of one row: a warp for the short rows of heads, the whole block for hidden states.
constexpr std::size_t longest_row_of_warp = 512;

template <int row_threads>
struct RowPlace {
    std::size_t row = std::size_t{blockIdx.x} * (threads / row_threads) + threadIdx.x / row_threads;
    std::size_t thread = threadIdx.x % row_threads;
};

template <int row_threads>
__device__ float reduce_row(float value) {
    if constexpr (row_threads == warp_size) {
        return reduce_in_warp(value, Sum());
    } else {
        return reduce_in_block<row_threads>(value, 0.0F, Sum());
    }
}

/// body.template operator()<count>(column) for all columns of a row that this thread takes.
template <int row_threads, typename Body>
__device__ void for_columns(std::size_t columns, std::size_t thread, bool aligned, const Body& body) {
    const std::size_t packs = aligned ? columns / wide : 0;
    for (std::size_t i = thread; i < packs; i += row_threads) body.template operator()<wide>(i * wide);
    for (std::size_t i = packs * wide + thread; i < columns; i += row_threads) body.template operator()<1>(i);
}

template <int row_threads, typename X, typename Y>
__global__ void __launch_bounds__(threads)
    rms_norm_kernel(const X* x, const float* weight, std::size_t rows, std::size_t columns, float epsilon, bool aligned,
                    Y* y, float* inverse_rms) {
    const RowPlace<row_threads> place;
    const bool exists = place.row < rows;  // all threads of a warp take part in its sum
    const X* const in = x + place.row * columns;
    float sum = 0;
    const auto add_squares = [&]<int count>(std::size_t j) {
        float values[count];
        load<count>(in + j, values);
        ESPALIER_UNROLL
        for (int i = 0; i < count; ++i) sum += values[i] * values[i];
    };
    if (exists) for_columns<row_threads>(columns, place.thread, aligned, add_squares);
    sum = reduce_row<row_threads>(sum);
    if (!exists) return;
    const float scale = 1.0F / sqrtf(sum / static_cast<float>(columns) + epsilon);
    if (place.thread == 0) inverse_rms[place.row] = scale;
    Y* const out = y + place.row * columns;
    for_columns<row_threads>(columns, place.thread, aligned, [&]<int count>(std::size_t j) {
        float values[count], weights[count];
        load<count>(in + j, values);
        load<count>(weight + j, weights);
        ESPALIER_UNROLL
        for (int i = 0; i < count; ++i) values[i] = values[i] * scale * weights[i];
        store<count>(out + j, values);
    });
}

template <typename T>
struct BackwardArguments {
    const T* x;
    const float* weight;
    const float* inverse_rms;
    const T* dy;
    T* dx;
    std::size_t rows, columns;
    bool accumulate, aligned;
};

/// With u = dy * weight: dx = scale * (u - x * scale^2 * mean(u * x)).
template <int row_threads, typename T>
__global__ void __launch_bounds__(threads) rms_norm_backward_kernel(BackwardArguments<T> a) {
    const RowPlace<row_threads> place;
    const bool exists = place.row < a.rows;
    const T* const in = a.x + place.row * a.columns;
    const T* const gradient = a.dy + place.row * a.columns;
    float dot = 0;
    const auto add_products = [&]<int count>(std::size_t j) {
        float values[count], gradients[count], weights[count];
        load<count>(in + j, values);
        load<count>(gradient + j, gradients);
        load<count>(a.weight + j, weights);
        ESPALIER_UNROLL
        for (int i = 0; i < count; ++i) dot += gradients[i] * weights[i] * values[i];
    };
    if (exists) for_columns<row_threads>(a.columns, place.thread, a.aligned, add_products);
    dot = reduce_row<row_threads>(dot);
    if (!exists) return;
    const float scale = a.inverse_rms[place.row];
    const float projection = dot * scale * scale / static_cast<float>(a.columns);
    T* const out = a.dx + place.row * a.columns;
    for_columns<row_threads>(a.columns, place.thread, a.aligned, [&]<int count>(std::size_t j) {
        float values[count], gradients[count], weights[count], result[count];
        load<count>(in + j, values);
        load<count>(gradient + j, gradients);
        load<count>(a.weight + j, weights);
        if (a.accumulate) load<count>(out + j, result);
        ESPALIER_UNROLL
        for (int i = 0; i < count; ++i) {
            const float value = scale * (gradients[i] * weights[i] - values[i] * projection);
            result[i] = a.accumulate ? result[i] + value : value;
        }
        store<count>(out + j, result);
    });
}

/// run.template operator()<row_threads>(blocks).
template <typename Run>
void with_row_threads(std::size_t rows, std::size_t columns, const Run& run) {
    constexpr std::size_t rows_of_warps = threads / warp_size;
    if (columns <= longest_row_of_warp)
        run.template operator()<warp_size>(to_unsigned((rows + rows_of_warps - 1) / rows_of_warps));
    else
        run.template operator()<threads>(to_unsigned(rows));
}

/// float32 to float32, float32 to a 16-bit type, or one 16-bit type throughout: visitor.template operator()<X, Y>().
template <typename Visitor>
void with_types(DType x, DType y, const Visitor& visitor) {
    require(x == y || x == DType::f32 || y == DType::f32, "types of rms_norm");
    with_type(x == DType::f32 ? y : x, [&]<typename T>() {
        if (x == y)
            visitor.template operator()<T, T>();
        else if (x == DType::f32)
            visitor.template operator()<float, T>();
        else
            visitor.template operator()<T, float>();
    });
}

}  // namespace

void CudaDevice::rms_norm(TensorView x, TensorView weight, float epsilon, TensorView y, TensorView inverse_rms) {
    require(weight.size() == x.columns && y.size() == x.size() && inverse_rms.size() >= x.rows, "shapes of rms_norm");
    if (x.size() == 0) return;
    const bool aligned = are_aligned({x.data, weight.data, y.data}) && x.columns % wide == 0;
    with_types(x.dtype, y.dtype, [&]<typename X, typename Y>() {
        with_row_threads(x.rows, x.columns, [&]<int row_threads>(unsigned blocks) {
            launch("rms_norm", rms_norm_kernel<row_threads, X, Y>, {blocks, threads}, stream_, as<X>(x),
                   weight.floats(), x.rows, x.columns, epsilon, aligned, as<Y>(y), inverse_rms.floats());
        });
    });
}

void CudaDevice::rms_norm_backward(TensorView x, TensorView weight, TensorView inverse_rms, TensorView dy,
                                   bool accumulate, TensorView dx) {
    require(weight.size() == x.columns && dy.size() == x.size() && dx.size() == x.size(),
            "shapes of rms_norm_backward");
    require(x.dtype == dy.dtype && x.dtype == dx.dtype, "types of rms_norm_backward");
    if (x.size() == 0) return;
    const bool aligned = are_aligned({x.data, weight.data, dy.data, dx.data}) && x.columns % wide == 0;
    with_type(x.dtype, [&]<typename T>() {
        with_row_threads(x.rows, x.columns, [&]<int row_threads>(unsigned blocks) {
            launch("rms_norm_backward", rms_norm_backward_kernel<row_threads, T>, {blocks, threads}, stream_,
                   BackwardArguments<T>{as<T>(x), weight.floats(), inverse_rms.floats(), as<T>(dy), as<T>(dx), x.rows,
                                        x.columns, accumulate, aligned});
        });
    });
}

}  // namespace espalier
