// Matrix products of linear layers. Each is cut into column or row panels by shape alone and each panel is one
// single-threaded sgemm: measured within 5 % of OpenBLAS's own threading, and the bits do not depend on the thread
// count.
#include "kernels/cpu/blas.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/parallel.h"
#include "src/base/index_range.h"

namespace espalier {

using cpu::to_blas;

namespace {

/// Columns (or rows) of a panel: wide enough to pay for packing the shared operand again, narrow enough for many
/// threads.
std::size_t panel_width(std::size_t width) {
    return width < 2048 ? 96 : width < 8192 ? 192 : 256;
}

/// Rows of a weight-gradient panel: about 256 KiB, so that it is still in the L2 cache when its consumer reads it.
std::size_t gradient_panel_rows(std::size_t columns) {
    return std::clamp<std::size_t>(std::size_t{65536} / columns / 8 * 8, 16, 128);
}

/// Rows at a time of a product that is one panel wide.
constexpr std::size_t rows_of_narrow = 32;

double product_flops(std::size_t m, std::size_t n, std::size_t k) {
    return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
}

struct GradientPanelScratch {};

}  // namespace

void CpuDevice::linear(TensorView x, TensorView weight, TensorView added, TensorView y) {
    require(x.columns == weight.columns && y.rows == x.rows && y.columns == weight.rows, "shapes of linear");
    require(added.empty() || added.size() == y.size(), "shape of what linear adds");
    if (y.size() == 0) return;
    const bool accumulate = !added.empty();
    if (accumulate && added.data != y.data) copy(added, y);
    const std::size_t in = weight.columns, out = weight.rows;
    const double flops = product_flops(x.rows, out, in);
    const auto multiply = [&](IndexRange rows, IndexRange columns) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, to_blas(rows.size()), to_blas(columns.size()), to_blas(in),
                    1.0F, x.floats() + rows.begin * in, to_blas(in), weight.floats() + columns.begin * in, to_blas(in),
                    accumulate ? 1.0F : 0.0F, y.floats() + rows.begin * out + columns.begin, to_blas(out));
    };
    const std::size_t width = panel_width(out);
    if (out > width)
        cpu::parallel_chunks(
            out, width,
            [&](std::size_t begin, std::size_t end) {
                multiply({0, x.rows}, {begin, end});
            },
            flops / 2);
    else  // as with the A of an update of low rank
        cpu::parallel_chunks(
            x.rows, rows_of_narrow,
            [&](std::size_t begin, std::size_t end) {
                multiply({begin, end}, {0, out});
            },
            flops / 2);
    flops_ += flops;
}

void CpuDevice::linear_input_gradient(TensorView dy, TensorView weight, bool accumulate, TensorView dx) {
    require(dy.columns == weight.rows && dx.rows == dy.rows && dx.columns == weight.columns,
            "shapes of linear_input_gradient");
    if (dx.size() == 0) return;
    const std::size_t in = weight.columns, out = weight.rows;
    const double flops = product_flops(dy.rows, in, out);
    cpu::parallel_chunks(
        in, panel_width(in),
        [&](std::size_t begin, std::size_t end) {
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, to_blas(dy.rows), to_blas(end - begin), to_blas(out),
                        1.0F, dy.floats(), to_blas(out), weight.floats() + begin, to_blas(in), accumulate ? 1.0F : 0.0F,
                        dx.floats() + begin, to_blas(in));
        },
        flops / 2);
    flops_ += flops;
}

void CpuDevice::linear_weight_gradients(TensorView x, std::span<const WeightGradient> gradients) {
    const std::size_t in = x.columns;
    for (const auto& [dy, consume, finished] : gradients) {
        require(dy.rows == x.rows, "shapes of linear_weight_gradient");
        const std::size_t out = dy.columns;
        const double flops = product_flops(dy.rows, in, out);
        const auto multiply = [&, dy = dy](IndexRange rows, IndexRange columns, float* panel) {
            cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, to_blas(rows.size()), to_blas(columns.size()),
                        to_blas(dy.rows), 1.0F, dy.floats() + rows.begin, to_blas(out), x.floats() + columns.begin,
                        to_blas(in), 0.0F, panel + columns.begin, to_blas(in));
        };
        const auto as_panel = [&](float* panel, std::size_t rows) {
            return TensorView{reinterpret_cast<std::byte*>(panel), DType::f32, rows, in};
        };
        const std::size_t panel_rows = gradient_panel_rows(in);
        if (out > panel_rows) {
            cpu::parallel_chunks(
                out, panel_rows,
                [&, &consume = consume](std::size_t begin, std::size_t end) {
                    float* const panel = cpu::thread_scratch<GradientPanelScratch>((end - begin) * in);
                    multiply({begin, end}, {0, in}, panel);
                    consume(begin, as_panel(panel, end - begin));
                },
                flops / 2);
        } else {  // as with the A of an update of low rank
            float* const panel = cpu::thread_scratch<GradientPanelScratch>(out * in);
            cpu::parallel_chunks(
                in, panel_width(in),
                [&](std::size_t begin, std::size_t end) {
                    multiply({0, out}, {begin, end}, panel);
                },
                flops / 2);
            consume(0, as_panel(panel, out));
        }
        flops_ += flops;
        finished();
    }
}

void CpuDevice::add_low_rank_update(TensorView base, TensorView a, TensorView b, float scale, ZeroWeights zeros,
                                    TensorView weight) {
    require(a.rows == b.columns && weight.rows == b.rows && weight.columns == a.columns && base.size() == weight.size(),
            "shapes of add_low_rank_update");
    const std::size_t in = a.columns;
    const double flops = product_flops(b.rows, in, a.rows);
    cpu::parallel_chunks(
        b.rows, gradient_panel_rows(in),
        [&](std::size_t begin, std::size_t end) {
            float* const panel = cpu::thread_scratch<GradientPanelScratch>((end - begin) * in);
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, to_blas(end - begin), to_blas(in), to_blas(a.rows),
                        1.0F, b.floats() + begin * a.rows, to_blas(a.rows), a.floats(), to_blas(in), 0.0F, panel,
                        to_blas(in));
            const float* const from = base.floats() + begin * in;
            float* const to = weight.floats() + begin * in;
            const std::size_t count = (end - begin) * in;
            // Both outcomes are computed: a branch would keep the compiler from vectors.
            const bool keeps_zeros = zeros == ZeroWeights::kept;
#pragma omp simd
            for (std::size_t i = 0; i < count; ++i) {
                const float moved = from[i] + scale * panel[i];
                to[i] = keeps_zeros && from[i] == 0.0F ? 0.0F : moved;
            }
        },
        flops / 2);
    flops_ += flops;
}

void CpuDevice::accumulate_gram(TensorView x, TensorView gram) {
    require(gram.rows == x.columns && gram.columns == x.columns, "shapes of accumulate_gram");
    if (x.size() == 0) return;
    const std::size_t n = x.columns;
    const double flops = product_flops(x.rows, n, n + 1) / 2;
    cpu::parallel_chunks(
        n, panel_width(n),
        [&](std::size_t begin, std::size_t end) {  // the panel from its diagonal block on
            cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, to_blas(end - begin), to_blas(n - begin),
                        to_blas(x.rows), 1.0F, x.floats() + begin, to_blas(n), x.floats() + begin, to_blas(n), 1.0F,
                        gram.floats() + begin * n + begin, to_blas(n));
        },
        flops / 2);
    flops_ += flops;
}

}  // namespace espalier
