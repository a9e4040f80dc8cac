// SiLU gate, residual additions, and the element-wise steps of scores and losses.
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/exponential.h"
#include "kernels/cpu/parallel.h"

#include <cmath>

namespace espalier {

namespace {

/// body(i) for all elements of a tensor, vectorised and spread over threads.
template <typename Body>
void for_each_element(std::size_t count, const Body& body) {
    cpu::parallel_chunks(count, cpu::elements_per_chunk, [&](std::size_t begin, std::size_t end) {
#pragma omp simd
        for (std::size_t i = begin; i < end; ++i) body(i);
    });
}

}  // namespace

void CpuDevice::silu_multiply(TensorView gate, TensorView up, TensorView out) {
    require(gate.size() == up.size() && gate.size() == out.size(), "shapes of silu_multiply");
    const float* const g = gate.floats();
    const float* const u = up.floats();
    float* const y = out.floats();
    for_each_element(out.size(), [=](std::size_t i) { y[i] = g[i] / (1.0F + cpu::exponential(-g[i])) * u[i]; });
}

void CpuDevice::silu_multiply_backward(TensorView dout, TensorView gate, TensorView up) {
    require(gate.size() == up.size() && gate.size() == dout.size(), "shapes of silu_multiply_backward");
    const float* const d = dout.floats();
    float* const g = gate.floats();
    float* const u = up.floats();
    for_each_element(dout.size(), [=](std::size_t i) {
        const float sigmoid = 1.0F / (1.0F + cpu::exponential(-g[i]));
        const float silu = g[i] * sigmoid;
        const float slope = sigmoid * (1.0F + g[i] * (1.0F - sigmoid));
        g[i] = d[i] * u[i] * slope;
        u[i] = d[i] * silu;
    });
}

void CpuDevice::add(TensorView x, TensorView y) {
    require(x.size() == y.size(), "shapes of add");
    const float* const in = x.floats();
    float* const out = y.floats();
    for_each_element(y.size(), [=](std::size_t i) { out[i] += in[i]; });
}

void CpuDevice::subtract(TensorView a, TensorView b, TensorView difference) {
    require(a.size() == b.size() && a.size() == difference.size(), "shapes of subtract");
    const float *const x = a.floats(), *const y = b.floats();
    const DType dtype = difference.dtype;
    for_each_element(a.size(), [=, size = bytes_of(dtype), out = difference.data](std::size_t i) {
        const float value = x[i] - y[i];
        round_from_float(dtype, &value, 1, out + i * size);
    });
}

void CpuDevice::sum(TensorView a, TensorView difference, TensorView result) {
    require(a.size() == difference.size() && a.size() == result.size(), "shapes of sum");
    const float* const x = a.floats();
    float* const out = result.floats();
    const DType dtype = difference.dtype;
    for_each_element(a.size(), [=, size = bytes_of(dtype), in = difference.data](std::size_t i) {
        float value = 0;
        widen_to_float(dtype, in + i * size, 1, &value);
        out[i] = x[i] + value;
    });
}

void CpuDevice::add_bias(TensorView bias, TensorView y) {
    require(bias.size() == y.columns, "shapes of add_bias");
    const float* const b = bias.floats();
    cpu::parallel_chunks(y.rows, cpu::rows_per_chunk(y.columns), [&](std::size_t begin, std::size_t end) {
        for (std::size_t row = begin; row < end; ++row) {
            float* const out = y.floats() + row * y.columns;
#pragma omp simd
            for (std::size_t j = 0; j < y.columns; ++j) out[j] += b[j];
        }
    });
}

void CpuDevice::square_accumulate(TensorView x, TensorView sum) {
    require(x.size() == sum.size(), "shapes of square_accumulate");
    const float* const in = x.floats();
    float* const out = sum.floats();
    for_each_element(sum.size(), [=](std::size_t i) { out[i] += in[i] * in[i]; });
}

void CpuDevice::scaled_square_root(float scale, TensorView x) {
    float* const values = x.floats();
    for_each_element(x.size(), [=](std::size_t i) { values[i] = std::sqrt(values[i] * scale); });
}

void CpuDevice::frobenius_direction(TensorView y, TensorView square_sum, float scale, TensorView direction) {
    require(y.size() == direction.size(), "shapes of frobenius_direction");
    const double norm = std::sqrt(*square_sum.doubles());
    const float factor = norm > 0 ? static_cast<float>(static_cast<double>(scale) / norm) : 0.0F;
    const float* const in = y.floats();
    float* const out = direction.floats();
    for_each_element(y.size(), [=](std::size_t i) { out[i] = in[i] * factor; });
}

void CpuDevice::squared_error_gradient(TensorView target, TensorView y) {
    require(y.size() == target.size(), "shapes of squared_error_gradient");
    const float* const f0 = target.floats();
    float* const values = y.floats();
    for_each_element(y.size(), [=](std::size_t i) { values[i] = 2.0F * (values[i] - f0[i]); });
}

void CpuDevice::scale_where_nonzero(TensorView weight, float scale, TensorView x) {
    require(weight.empty() || weight.size() == x.size(), "shapes of scale_where_nonzero");
    float* const values = x.floats();
    if (weight.empty()) return for_each_element(x.size(), [=](std::size_t i) { values[i] *= scale; });
    const float* const w = weight.floats();
    for_each_element(x.size(), [=](std::size_t i) {
        const float scaled = scale * values[i];  // also of what goes: a branch would keep the compiler from vectors
        values[i] = w[i] == 0.0F ? 0.0F : scaled;
    });
}

void CpuDevice::scatter_rows(TensorView source, std::span<const std::uint32_t> source_rows,
                             std::span<const std::uint32_t> rows, TensorView destination) {
    require(source.columns == destination.columns && source_rows.size() == rows.size(), "shapes of scatter_rows");
    const std::size_t n = source.columns, row_bytes = n * bytes_of(source.dtype);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        require(source_rows[i] < source.rows && rows[i] < destination.rows, "rows of scatter_rows");
        widen_to_float(source.dtype, source.data + source_rows[i] * row_bytes, n, destination.floats() + rows[i] * n);
    }
}

void CpuDevice::convert(TensorView source, TensorView destination) {
    require(source.size() == destination.size(), "shapes of convert");
    if (source.dtype == destination.dtype) {
        copy(source, destination);
        return;
    }
    const std::size_t from = bytes_of(source.dtype), to = bytes_of(destination.dtype);
    cpu::parallel_chunks(source.size(), cpu::elements_per_chunk, [&](std::size_t begin, std::size_t end) {
        if (destination.dtype == DType::f32) {
            widen_to_float(source.dtype, source.data + begin * from, end - begin, destination.floats() + begin);
        } else {
            round_from_float(destination.dtype, source.floats() + begin, end - begin, destination.data + begin * to);
        }
    });
}

void CpuDevice::round_to(DType dtype, TensorView values) {
    if (dtype == DType::f32) return;
    float* const v = values.floats();
    cpu::parallel_chunks(values.size(), cpu::elements_per_chunk, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            v[i] = dtype == DType::bf16 ? float_from_bf16(bf16_from_float(v[i])) : float_from_f16(f16_from_float(v[i]));
        }
    });
}

}  // namespace espalier
