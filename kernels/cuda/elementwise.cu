// SiLU gate, residual additions, and the element-wise steps of scores and losses.
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/working_memory.h"

#include <algorithm>

namespace espalier {

namespace {

using namespace cuda;

/// out = operation(a, b), element by element; out may be a or b.
template <typename Operation, typename A, typename B, typename Out>
struct Combine {
    static constexpr int at_once = sizeof(A) == 4 && sizeof(B) == 4 && sizeof(Out) == 4 ? four_floats : wide;
    const A* a;
    const B* b;
    Out* out;
    template <int count>
    __device__ void apply(std::size_t i) const {
        float x[count], y[count];
        load<count>(a + i, x);
        load<count>(b + i, y);
        ESPALIER_UNROLL
        for (int j = 0; j < count; ++j) x[j] = Operation()(x[j], y[j]);
        store<count>(out + i, x);
    }
};

struct Silu {
    __device__ float operator()(float gate, float up) const { return gate / (1.0F + expf(-gate)) * up; }
};
struct Difference {
    __device__ float operator()(float a, float b) const { return a - b; }
};
struct TwiceTheDifference {
    __device__ float operator()(float a, float b) const { return 2.0F * (a - b); }
};

template <typename T>
struct SiluMultiplyBackward {
    const T* dout;
    T* gate;
    T* up;
    template <int count>
    __device__ void apply(std::size_t i) const {
        float d[count], g[count], u[count];
        load<count>(dout + i, d);
        load<count>(gate + i, g);
        load<count>(up + i, u);
        ESPALIER_UNROLL
        for (int j = 0; j < count; ++j) {
            const float sigmoid = 1.0F / (1.0F + expf(-g[j]));
            const float silu = g[j] * sigmoid;
            const float slope = sigmoid * (1.0F + g[j] * (1.0F - sigmoid));
            g[j] = d[j] * u[j] * slope;
            u[j] = d[j] * silu;
        }
        store<count>(gate + i, g);
        store<count>(up + i, u);
    }
};

template <typename T>
struct AddBias {
    const float* bias;
    T* y;
    std::size_t columns;
    template <int count>
    __device__ void apply(std::size_t i) const {
        float a[count], b[count];
        load<count>(bias + i % columns, a);
        load<count>(y + i, b);
        ESPALIER_UNROLL
        for (int j = 0; j < count; ++j) b[j] += a[j];
        store<count>(y + i, b);
    }
};

struct SquareAccumulate {
    static constexpr int at_once = four_floats;
    const float* x;
    float* sum;
    template <int count>
    __device__ void apply(std::size_t i) const {
        float a[count], b[count];
        load<count>(x + i, a);  // in the cache, when it is a panel of gradients
        load_once<count>(sum + i, b);
        ESPALIER_UNROLL
        for (int j = 0; j < count; ++j) b[j] += a[j] * a[j];
        store_once<count>(sum + i, b);
    }
};

struct ScaledSquareRoot {
    static constexpr int at_once = four_floats;
    float scale;
    float* x;
    template <int count>
    __device__ void apply(std::size_t i) const {
        float a[count];
        load<count>(x + i, a);
        ESPALIER_UNROLL
        for (int j = 0; j < count; ++j) a[j] = sqrtf(a[j] * scale);
        store<count>(x + i, a);
    }
};

struct FrobeniusDirection {
    static constexpr int at_once = four_floats;
    const float* y;
    const double* square_sum;
    float scale;
    float* direction;
    float factor = 0;
    __device__ void prepare() {
        const double norm = sqrt(*square_sum);
        factor = norm > 0 ? static_cast<float>(static_cast<double>(scale) / norm) : 0.0F;
    }
    template <int count>
    __device__ void apply(std::size_t i) const {
        float a[count];
        load<count>(y + i, a);
        ESPALIER_UNROLL
        for (int j = 0; j < count; ++j) a[j] *= factor;
        store<count>(direction + i, a);
    }
};

template <typename T, bool keeps_zeros>
struct AddUpdate {
    const T* base;
    const float* update;
    float scale;
    T* weight;
    template <int count>
    __device__ void apply(std::size_t i) const {
        float u[count], w[count];
        load<count>(update + i, u);
        load<count>(base + i, w);
        ESPALIER_UNROLL
        for (int j = 0; j < count; ++j) {
            const float moved = w[j] + scale * u[j];
            w[j] = keeps_zeros && w[j] == 0.0F ? 0.0F : moved;
        }
        store<count>(weight + i, w);
    }
};

template <typename T>
struct ScaleWhereNonzero {
    const T* weight;  ///< or null
    float scale;
    float* x;
    template <int count>
    __device__ void apply(std::size_t i) const {
        float values[count], w[count];
        load<count>(x + i, values);
        if (weight != nullptr) load<count>(weight + i, w);
        ESPALIER_UNROLL
        for (int j = 0; j < count; ++j) {
            values[j] = weight != nullptr && w[j] == 0.0F ? 0.0F : scale * values[j];
        }
        store<count>(x + i, values);
    }
};

template <typename From, typename To>
struct Convert {
    const From* source;
    To* destination;
    template <int count>
    __device__ void apply(std::size_t i) const {
        float a[count];
        load<count>(source + i, a);
        store<count>(destination + i, a);
    }
};

template <typename T>
struct RoundTo {
    float* values;
    template <int count>
    __device__ void apply(std::size_t i) const {
        float a[count];
        load<count>(values + i, a);
        ESPALIER_UNROLL
        for (int j = 0; j < count; ++j) a[j] = to_float(from_float<T>(a[j]));
        store<count>(values + i, a);
    }
};

template <typename T>
__global__ void scatter_rows_kernel(const T* source, const std::uint32_t* source_rows, const std::uint32_t* rows,
                                    std::size_t columns, float* destination) {
    const T* const from = source + source_rows[blockIdx.x] * columns;
    float* const to = destination + rows[blockIdx.x] * columns;
    for (std::size_t j = threadIdx.x; j < columns; j += blockDim.x) to[j] = to_float(from[j]);
}

}  // namespace

void CudaDevice::silu_multiply(TensorView gate, TensorView up, TensorView out) {
    require(gate.size() == up.size() && gate.size() == out.size(), "shapes of silu_multiply");
    require(gate.dtype == up.dtype && gate.dtype == out.dtype, "types of silu_multiply");
    with_type(gate.dtype, [&]<typename T>() {
        for_each_element("silu_multiply", out.size(), are_aligned({gate.data, up.data, out.data}), stream_,
                         Combine<Silu, T, T, T>{as<T>(gate), as<T>(up), as<T>(out)});
    });
}

void CudaDevice::silu_multiply_backward(TensorView dout, TensorView gate, TensorView up) {
    require(gate.size() == up.size() && gate.size() == dout.size(), "shapes of silu_multiply_backward");
    require(gate.dtype == up.dtype && gate.dtype == dout.dtype, "types of silu_multiply_backward");
    with_type(gate.dtype, [&]<typename T>() {
        for_each_element("silu_multiply_backward", dout.size(), are_aligned({dout.data, gate.data, up.data}), stream_,
                         SiluMultiplyBackward<T>{as<T>(dout), as<T>(gate), as<T>(up)});
    });
}

void CudaDevice::add(TensorView x, TensorView y) {
    require(x.size() == y.size(), "shapes of add");
    for_each_element("add", y.size(), are_aligned({x.data, y.data}), stream_,
                     Combine<Sum, float, float, float>{y.floats(), x.floats(), y.floats()});
}

void CudaDevice::subtract(TensorView a, TensorView b, TensorView difference) {
    require(a.size() == b.size() && a.size() == difference.size(), "shapes of subtract");
    with_type(difference.dtype, [&]<typename T>() {
        for_each_element("subtract", a.size(), are_aligned({a.data, b.data, difference.data}), stream_,
                         Combine<Difference, float, float, T>{a.floats(), b.floats(), as<T>(difference)});
    });
}

void CudaDevice::sum(TensorView a, TensorView difference, TensorView result) {
    require(a.size() == difference.size() && a.size() == result.size(), "shapes of sum");
    with_type(difference.dtype, [&]<typename T>() {
        for_each_element("sum", a.size(), are_aligned({a.data, difference.data, result.data}), stream_,
                         Combine<Sum, float, T, float>{a.floats(), as<const T>(difference), result.floats()});
    });
}

void CudaDevice::add_bias(TensorView bias, TensorView y) {
    require(bias.size() == y.columns, "shapes of add_bias");
    const bool aligned = are_aligned({bias.data, y.data}) && y.columns % wide == 0;
    with_type(y.dtype, [&]<typename T>() {
        for_each_element("add_bias", y.size(), aligned, stream_, AddBias<T>{bias.floats(), as<T>(y), y.columns});
    });
}

void CudaDevice::square_accumulate(TensorView x, TensorView sum) {
    require(x.size() == sum.size(), "shapes of square_accumulate");
    for_each_element("square_accumulate", sum.size(), are_aligned({x.data, sum.data}), stream_,
                     SquareAccumulate{x.floats(), sum.floats()});
}

void CudaDevice::scaled_square_root(float scale, TensorView x) {
    for_each_element("scaled_square_root", x.size(), are_aligned({x.data}), stream_,
                     ScaledSquareRoot{scale, x.floats()});
}

void CudaDevice::frobenius_direction(TensorView y, TensorView square_sum, float scale, TensorView direction) {
    require(y.size() == direction.size(), "shapes of frobenius_direction");
    for_each_element("frobenius_direction", y.size(), are_aligned({y.data, direction.data}), stream_,
                     FrobeniusDirection{y.floats(), square_sum.doubles(), scale, direction.floats()});
}

void CudaDevice::squared_error_gradient(TensorView target, TensorView y) {
    require(y.size() == target.size(), "shapes of squared_error_gradient");
    for_each_element("squared_error_gradient", y.size(), are_aligned({target.data, y.data}), stream_,
                     Combine<TwiceTheDifference, float, float, float>{y.floats(), target.floats(), y.floats()});
}

void CudaDevice::add_low_rank_update(TensorView base, TensorView a, TensorView b, float scale, ZeroWeights zeros,
                                     TensorView weight) {
    require(a.rows == b.columns && weight.rows == b.rows && weight.columns == a.columns && base.size() == weight.size(),
            "shapes of add_low_rank_update");
    require(base.dtype == weight.dtype, "types of add_low_rank_update");
    const std::size_t rows = std::min(b.rows, gradient_panel_rows(a.columns, multiprocessors_));
    const Tensor panel = make_tensor(DType::f32, rows, a.columns, working_memory);
    for (std::size_t begin = 0; begin < b.rows; begin += rows) {
        const std::size_t end = std::min(b.rows, begin + rows);
        const TensorView update = panel.view().row_range(0, end - begin), from = base.row_range(begin, end),
                         to = weight.row_range(begin, end);
        linear_input_gradient(b.row_range(begin, end), a, false, update);
        const bool aligned = are_aligned({from.data, update.data, to.data});
        with_type(weight.dtype, [&]<typename T>() {
            if (zeros == ZeroWeights::kept) {
                for_each_element("add_low_rank_update", to.size(), aligned, stream_,
                                 AddUpdate<T, true>{as<const T>(from), update.floats(), scale, as<T>(to)});
            } else {
                for_each_element("add_low_rank_update", to.size(), aligned, stream_,
                                 AddUpdate<T, false>{as<const T>(from), update.floats(), scale, as<T>(to)});
            }
        });
    }
}

void CudaDevice::scale_where_nonzero(TensorView weight, float scale, TensorView x) {
    require(weight.empty() || weight.size() == x.size(), "shapes of scale_where_nonzero");
    const bool aligned = are_aligned({weight.data, x.data});
    with_type(weight.dtype, [&]<typename T>() {
        for_each_element("scale_where_nonzero", x.size(), aligned, stream_,
                         ScaleWhereNonzero<T>{as<const T>(weight), scale, x.floats()});
    });
}

void CudaDevice::scatter_rows(TensorView source, std::span<const std::uint32_t> source_rows,
                              std::span<const std::uint32_t> rows, TensorView destination) {
    require(source.columns == destination.columns && source_rows.size() == rows.size(), "shapes of scatter_rows");
    for (std::size_t i = 0; i < rows.size(); ++i) {
        require(source_rows[i] < source.rows && rows[i] < destination.rows, "rows of scatter_rows");
    }
    if (rows.empty()) return;
    const Tensor indices = make_tensor(DType::f32, 2, rows.size(), working_memory);  // two rows of 32-bit numbers
    const TensorView from = indices.view().row_range(0, 1), to = indices.view().row_range(1, 2);
    copy_from_host(source_rows.data(), from);
    copy_from_host(rows.data(), to);
    with_type(source.dtype, [&]<typename T>() {
        launch("scatter_rows", scatter_rows_kernel<T>, {to_unsigned(rows.size()), 128}, stream_, as<const T>(source),
               as<const std::uint32_t>(from), as<const std::uint32_t>(to), source.columns, destination.floats());
    });
}

void CudaDevice::convert(TensorView source, TensorView destination) {
    require(source.size() == destination.size(), "shapes of convert");
    if (source.dtype == destination.dtype) {
        copy(source, destination);
        return;
    }
    require(source.dtype == DType::f32 || destination.dtype == DType::f32, "types of convert");
    const bool aligned = are_aligned({source.data, destination.data});
    const bool widens = destination.dtype == DType::f32;
    with_type(widens ? source.dtype : destination.dtype, [&]<typename T>() {
        if (widens) {
            for_each_element("convert", source.size(), aligned, stream_,
                             Convert<T, float>{as<T>(source), destination.floats()});
        } else {
            for_each_element("convert", source.size(), aligned, stream_,
                             Convert<float, T>{source.floats(), as<T>(destination)});
        }
    });
}

void CudaDevice::round_to(DType dtype, TensorView values) {
    if (dtype == DType::f32) return;
    with_type(dtype, [&]<typename T>() {
        for_each_element("round_to", values.size(), are_aligned({values.data}), stream_, RoundTo<T>{values.floats()});
    });
}

}  // namespace espalier
