// Matrix products of linear layers. Shapes depend on the model and the sample only, never on the number of ranks.
#include "kernels/cuda/cuda_device.h"

#include <algorithm>

namespace espalier {

namespace {

using cuda::Factor;

Factor factor(TensorView matrix, bool transposed = false) {
    return {matrix.data, matrix.dtype, matrix.columns, transposed};
}

/// Rows of a weight-gradient panel: 32 MiB of float32 stay in the L2 cache (50 MiB on sm_90, 40 on sm_80) until their
/// consumer has read them, and fill the GPU with 128 x 256 tiles about twice.
std::size_t gradient_panel_rows(std::size_t columns) {
    constexpr std::size_t panel_elements = std::size_t{8} << 20, tile = 128;
    return std::max(tile, panel_elements / columns / tile * tile);
}

}  // namespace

void CudaDevice::count_product(std::size_t m, std::size_t n, std::size_t k) {
    flops_ += 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
}

void CudaDevice::linear(TensorView x, TensorView weight, bool accumulate, TensorView y) {
    require(x.columns == weight.columns && y.rows == x.rows && y.columns == weight.rows, "shapes of linear");
    if (y.size() == 0) return;
    products_->multiply(x.rows, weight.rows, x.columns, factor(x), factor(weight, true), accumulate, float32_products_,
                        factor(y));
    count_product(x.rows, weight.rows, x.columns);
}

void CudaDevice::linear_input_gradient(TensorView dy, TensorView weight, bool accumulate, TensorView dx) {
    require(dy.columns == weight.rows && dx.rows == dy.rows && dx.columns == weight.columns,
            "shapes of linear_input_gradient");
    if (dx.size() == 0) return;
    products_->multiply(dy.rows, weight.columns, dy.columns, factor(dy), factor(weight), accumulate, float32_products_,
                        factor(dx));
    count_product(dy.rows, weight.columns, dy.columns);
}

void CudaDevice::linear_weight_gradient(TensorView dy, TensorView x, const GradientPanelConsumer& consume) {
    require(dy.rows == x.rows, "shapes of linear_weight_gradient");
    const std::size_t in = x.columns, out = dy.columns, rows = std::min(out, gradient_panel_rows(in));
    const Tensor panel = make_tensor(DType::f32, rows, in);
    for (std::size_t begin = 0; begin < out; begin += rows) {
        const TensorView part = panel.view().row_range(0, std::min(rows, out - begin));
        const Factor columns{dy.data + begin * bytes_of(dy.dtype), dy.dtype, out, true};
        products_->multiply(part.rows, in, dy.rows, columns, factor(x), false, float32_products_, factor(part));
        consume(begin, part);
    }
    count_product(out, in, dy.rows);
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
        products_->multiply(rows, n - begin, x.rows, left, right, true, float32_products_, result);
        count_product(rows, n - begin, x.rows);
    }
}

}  // namespace espalier
