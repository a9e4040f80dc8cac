// Matrix products of linear layers. Shapes depend on the model and the sample only, never on the number of ranks.
#include "kernels/cuda/cuda_device.h"
#include "kernels/working_memory.h"

#include <algorithm>

namespace espalier {

namespace {

using cuda::Factor;

Factor factor(TensorView matrix, bool transposed = false) {
    return {matrix.data, matrix.dtype, matrix.columns, transposed};
}

}  // namespace

void CudaDevice::count_product(std::size_t m, std::size_t n, std::size_t k) {
    flops_ += 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
}

void CudaDevice::linear(TensorView x, TensorView weight, TensorView added, TensorView y) {
    require(x.columns == weight.columns && y.rows == x.rows && y.columns == weight.rows, "shapes of linear");
    require(added.empty() || (added.size() == y.size() && added.dtype == y.dtype), "shape of what linear adds");
    if (y.size() == 0) return;
    products_->multiply(x.rows, weight.rows, x.columns, factor(x), factor(weight, true), added.data, float32_products_,
                        factor(y));
    count_product(x.rows, weight.rows, x.columns);
}

void CudaDevice::linear_input_gradient(TensorView dy, TensorView weight, bool accumulate, TensorView dx) {
    require(dy.columns == weight.rows && dx.rows == dy.rows && dx.columns == weight.columns,
            "shapes of linear_input_gradient");
    if (dx.size() == 0) return;
    products_->multiply(dy.rows, weight.columns, dy.columns, factor(dy), factor(weight), accumulate ? dx.data : nullptr,
                        float32_products_, factor(dx));
    count_product(dy.rows, weight.columns, dy.columns);
}

void CudaDevice::linear_weight_gradients(TensorView x, std::span<const WeightGradient> gradients) {
    const std::size_t in = x.columns, tokens = x.rows;
    // Tensor cores read float32 factors along the summed dimension only; cuBLAS's kernels for other layouts reach 60 %
    // of those for this one, and transposing costs less than that.
    const bool along_sum = x.dtype == DType::f32 && float32_products_ == Float32Products::tf32;
    const Tensor x_transposed = along_sum ? transposed(x) : Tensor();
    const Factor right = along_sum ? factor(x_transposed, true) : factor(x);
    for (const WeightGradient& gradient : gradients) {
        const TensorView dy = gradient.dy;
        require(dy.rows == tokens, "shapes of linear_weight_gradient");
        const std::size_t out = dy.columns, rows = std::min(out, gradient_panel_rows(in, multiprocessors_));
        const Tensor dy_transposed = along_sum ? transposed(dy) : Tensor();
        const Tensor panel = make_tensor(DType::f32, rows, in, "gradient panel");
        for (std::size_t begin = 0; begin < out; begin += rows) {
            const TensorView part = panel.view().row_range(0, std::min(rows, out - begin));
            const Factor left = along_sum ? factor(dy_transposed.view().row_range(begin, begin + part.rows))
                                          : Factor{dy.data + begin * bytes_of(dy.dtype), dy.dtype, out, true};
            products_->multiply(part.rows, in, tokens, left, right, nullptr, float32_products_, factor(part));
            gradient.consume(begin, part);
        }
        count_product(out, in, tokens);
        gradient.finished();
    }
}

void CudaDevice::accumulate_gram(TensorView x, TensorView gram) {
    require(gram.rows == x.columns && gram.columns == x.columns, "shapes of accumulate_gram");
    if (x.size() == 0) return;
    constexpr std::size_t panel = 2048;
    const std::size_t n = x.columns, element = bytes_of(x.dtype);
    for (std::size_t begin = 0; begin < n; begin += panel) {  // the panel from its diagonal block on
        const std::size_t rows = std::min(panel, n - begin);
        const Factor left{x.data + begin * element, x.dtype, n, true},
            right{x.data + begin * element, x.dtype, n, false};
        const Factor result{gram.data + (begin * n + begin) * sizeof(float), DType::f32, n, false};
        products_->multiply(rows, n - begin, x.rows, left, right, result.data, float32_products_, result);
        count_product(rows, n - begin, x.rows);
    }
}

}  // namespace espalier
