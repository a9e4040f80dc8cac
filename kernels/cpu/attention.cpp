// Causal attention with grouped queries, tile by tile: for a tile of 64 query rows only the keys up to its last row are
// touched, so half of the T x T work is skipped and only 64 x T scores exist per thread. The backward pass rebuilds the
// probabilities of a tile from the kept log-sum-exp.
#include "kernels/cpu/blas.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/exponential.h"
#include "kernels/cpu/parallel.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace espalier {

using cpu::to_blas;

namespace {

constexpr std::size_t tile_rows = 64;

struct ScoreScratch {};
struct ScoreGradientScratch {};

/// One head's slice of a [T, heads * head_size] matrix.
struct HeadView {
    float* data;
    std::size_t stride;
    float* row(std::size_t t) const { return data + t * stride; }
};

HeadView head_of(TensorView matrix, std::size_t head, std::size_t head_size) {
    return {matrix.floats() + head * head_size, matrix.columns};
}

/// scores [rows, keys] = q[begin …] k^T * scale.
void tile_scores(const HeadView& q, const HeadView& k, std::size_t begin, std::size_t rows, std::size_t keys,
                 std::size_t head_size, float scale, float* scores) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, to_blas(rows), to_blas(keys), to_blas(head_size), scale,
                q.row(begin), to_blas(q.stride), k.data, to_blas(k.stride), 0.0F, scores, to_blas(keys));
}

/// Softmax of one row over its first `valid` scores; the rest becomes 0. Returns the log-sum-exp.
float softmax_row(float* row, std::size_t valid, std::size_t keys) {
    float largest = -std::numeric_limits<float>::infinity();
#pragma omp simd reduction(max : largest)
    for (std::size_t j = 0; j < valid; ++j) largest = row[j] > largest ? row[j] : largest;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::size_t j = 0; j < valid; ++j) {
        row[j] = cpu::exponential(row[j] - largest);
        sum += row[j];
    }
    const float inverse = 1.0F / sum;
    for (std::size_t j = 0; j < valid; ++j) row[j] *= inverse;
    for (std::size_t j = valid; j < keys; ++j) row[j] = 0;
    return largest + std::log(sum);
}

}  // namespace

void CpuDevice::attention(TensorView q, TensorView k, TensorView v, const AttentionShape& shape, TensorView out,
                          TensorView log_sum_exp) {
    const std::size_t tokens = q.rows, head_size = shape.head_size;
    require(q.columns == shape.query_heads * head_size && k.columns == shape.key_value_heads * head_size &&
                v.size() == k.size() && out.size() == q.size() && k.rows == tokens &&
                log_sum_exp.size() == shape.query_heads * tokens,
            "shapes of attention");
    const std::size_t tiles = cpu::chunks_of(tokens, tile_rows);
    const std::size_t group = shape.query_heads / shape.key_value_heads;
    const float scale = 1.0F / std::sqrt(static_cast<float>(head_size));
    // Two products over the lower triangle; the tiles' upper halves are not counted as useful work.
    const double flops = 2.0 * 2.0 * static_cast<double>(q.size()) * static_cast<double>(tokens + 1) / 2.0;
    cpu::parallel_for(
        shape.query_heads * tiles,
        [&](std::size_t item) {
            const std::size_t head = item / tiles, begin = item % tiles * tile_rows;
            const std::size_t rows = std::min(tile_rows, tokens - begin), keys = begin + rows;
            const HeadView key = head_of(k, head / group, head_size), value = head_of(v, head / group, head_size);
            const HeadView result = head_of(out, head, head_size);
            float* const scores = cpu::thread_scratch<ScoreScratch>(tile_rows * keys);
            tile_scores(head_of(q, head, head_size), key, begin, rows, keys, head_size, scale, scores);
            for (std::size_t i = 0; i < rows; ++i) {
                log_sum_exp.floats()[head * tokens + begin + i] = softmax_row(scores + i * keys, begin + i + 1, keys);
            }
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, to_blas(rows), to_blas(head_size), to_blas(keys),
                        1.0F, scores, to_blas(keys), value.data, to_blas(value.stride), 0.0F, result.row(begin),
                        to_blas(result.stride));
        },
        flops / 2);
    flops_ += flops;
}

void CpuDevice::attention_backward(TensorView q, TensorView k, TensorView v, TensorView out, TensorView log_sum_exp,
                                   TensorView dout, const AttentionShape& shape, TensorView dq, TensorView dk,
                                   TensorView dv) {
    const std::size_t tokens = q.rows, head_size = shape.head_size;
    require(dq.size() == q.size() && dk.size() == k.size() && dv.size() == v.size() && dout.size() == out.size(),
            "shapes of attention_backward");
    const std::size_t group = shape.query_heads / shape.key_value_heads;
    const float scale = 1.0F / std::sqrt(static_cast<float>(head_size));
    // Each query head's share of dk and dv; the heads of a group are added in order afterwards.
    const Tensor dk_heads = make_tensor(DType::f32, tokens, q.columns, working_memory);
    const Tensor dv_heads = make_tensor(DType::f32, tokens, q.columns, working_memory);
    const double flops = 5.0 * 2.0 * static_cast<double>(q.size()) * static_cast<double>(tokens + 1) / 2.0;
    cpu::parallel_for(
        shape.query_heads,
        [&](std::size_t head) {
            const HeadView query = head_of(q, head, head_size), key = head_of(k, head / group, head_size);
            const HeadView value = head_of(v, head / group, head_size);
            const HeadView result = head_of(out, head, head_size), dresult = head_of(dout, head, head_size);
            const HeadView dquery = head_of(dq, head, head_size);
            const HeadView dkey = head_of(dk_heads, head, head_size), dvalue = head_of(dv_heads, head, head_size);
            for (std::size_t t = 0; t < tokens; ++t) {
                std::fill_n(dkey.row(t), head_size, 0.0F);
                std::fill_n(dvalue.row(t), head_size, 0.0F);
            }
            for (std::size_t begin = 0; begin < tokens; begin += tile_rows) {
                const std::size_t rows = std::min(tile_rows, tokens - begin), keys = begin + rows;
                float* const p = cpu::thread_scratch<ScoreScratch>(tile_rows * keys);
                float* const ds = cpu::thread_scratch<ScoreGradientScratch>(tile_rows * keys);
                tile_scores(query, key, begin, rows, keys, head_size, scale, p);
                // dP = dO V^T
                cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, to_blas(rows), to_blas(keys), to_blas(head_size),
                            1.0F, dresult.row(begin), to_blas(dresult.stride), value.data, to_blas(value.stride), 0.0F,
                            ds, to_blas(keys));
                for (std::size_t i = 0; i < rows; ++i) {
                    const std::size_t valid = begin + i + 1;
                    const float lse = log_sum_exp.floats()[head * tokens + begin + i];
                    float delta = 0;  // sum_j dO_j O_j equals sum_j dP_j P_j
#pragma omp simd reduction(+ : delta)
                    for (std::size_t j = 0; j < head_size; ++j)
                        delta += dresult.row(begin + i)[j] * result.row(begin + i)[j];
                    float* const p_row = p + i * keys;
                    float* const ds_row = ds + i * keys;
#pragma omp simd
                    for (std::size_t j = 0; j < valid; ++j) {
                        p_row[j] = cpu::exponential(p_row[j] - lse);
                        ds_row[j] = p_row[j] * (ds_row[j] - delta) * scale;
                    }
                    for (std::size_t j = valid; j < keys; ++j) p_row[j] = ds_row[j] = 0;
                }
                // dV += P^T dO;  dQ = dS K;  dK += dS^T Q
                cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, to_blas(keys), to_blas(head_size), to_blas(rows),
                            1.0F, p, to_blas(keys), dresult.row(begin), to_blas(dresult.stride), 1.0F, dvalue.data,
                            to_blas(dvalue.stride));
                cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, to_blas(rows), to_blas(head_size), to_blas(keys),
                            1.0F, ds, to_blas(keys), key.data, to_blas(key.stride), 0.0F, dquery.row(begin),
                            to_blas(dquery.stride));
                cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, to_blas(keys), to_blas(head_size), to_blas(rows),
                            1.0F, ds, to_blas(keys), query.row(begin), to_blas(query.stride), 1.0F, dkey.data,
                            to_blas(dkey.stride));
            }
        },
        flops / 2);
    const auto add_group = [&](const Tensor& heads, TensorView sum) {
        cpu::parallel_chunks(tokens, cpu::rows_per_chunk(q.columns), [&](std::size_t begin, std::size_t end) {
            for (std::size_t t = begin; t < end; ++t) {
                const float* const source = heads.view().floats() + t * q.columns;
                float* const target = sum.floats() + t * sum.columns;
                for (std::size_t j = 0; j < sum.columns; ++j) {
                    const std::size_t first = (j / head_size * group) * head_size + j % head_size;
                    float total = source[first];
                    for (std::size_t g = 1; g < group; ++g) total += source[first + g * head_size];
                    target[j] = total;
                }
            }
        });
    };
    add_group(dk_heads, dk);
    add_group(dv_heads, dv);
    flops_ += flops;
}

}  // namespace espalier
