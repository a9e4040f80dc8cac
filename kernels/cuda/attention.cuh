#pragma once
/// What the forward and the backward kernels of attention share: sizes, the choice of an instantiation, and tiles of
/// heads in shared memory.

#include "kernels/cuda/tensor_core.cuh"
#include "kernels/device.h"

#include <cstdint>

namespace espalier::cuda {

/// One head of a [T, heads * head_size] matrix.
template <typename T>
struct HeadRows {
    T* data;
    std::size_t stride;
};

/// Sizes of one call. All rows of the matrices can be copied 16 bytes at a time when `aligned`.
struct AttentionSizes {
    int tokens, query_heads, key_value_heads, head_size;
    bool aligned;
    float scale;  ///< 1 / sqrt(head_size)
    __host__ __device__ int group() const { return query_heads / key_value_heads; }
};

inline constexpr float log2_of_e = 1.4426950408889634F;

/// Rows [first, first + rows) of a head as `rows` rows of `width` elements in shared memory; zeros beyond the tokens
/// and the head's size. Copies may be under way until wait_for_copies and a barrier.
template <int rows, int width, int padding, int threads, typename T>
__device__ void load_tile(T* tile, const HeadRows<const T>& head, int first, const AttentionSizes& sizes) {
    constexpr int stride = width + padding, in_pack = 16 / sizeof(T), packs = width / in_pack;
    for (int i = static_cast<int>(threadIdx.x); i < rows * packs; i += threads) {
        const int row = i / packs, column = i % packs * in_pack, token = first + row;
        T* const to = tile + row * stride + column;
        const T* const from = head.data + static_cast<std::size_t>(token) * head.stride + column;
        if (sizes.aligned) {
            const bool exists = token < sizes.tokens && column < sizes.head_size;
            copy_16_bytes(to, exists ? from : head.data, exists);
            continue;
        }
        for (int j = 0; j < in_pack; ++j) {
            const bool exists = token < sizes.tokens && column + j < sizes.head_size;
            to[j] = exists ? from[j] : from_float<T>(0.0F);
        }
    }
}

/// products[m][n] += tile `a` (16 rows of this warp for each m) times tile `b` transposed, over `width` columns.
template <typename Element, int width, int row_tiles, int columns, typename T>
__device__ void multiply_transposed(Accumulator (&products)[row_tiles][columns / 8], const T* a, const T* b,
                                    int stride) {
    using Core = TensorCore<Element>;
    ESPALIER_UNROLL
    for (int depth = 0; depth < width; depth += 16) {
        typename Core::A left[row_tiles];
        ESPALIER_UNROLL
        for (int m = 0; m < row_tiles; ++m) Core::load_a(left[m], a + m * 16 * stride + depth, stride);
        ESPALIER_UNROLL
        for (int n = 0; n < columns; n += 16) {
            typename Core::B right;
            Core::load_b_transposed(right, b + n * stride + depth, stride);
            ESPALIER_UNROLL
            for (int m = 0; m < row_tiles; ++m) {
                Core::multiply(products[m][n / 8], products[m][n / 8 + 1], left[m], right);
            }
        }
    }
}

/// sums[m][n] += the factors in accumulators (16 rows for each m, `depth` columns) times tile `b` [depth, width].
template <typename Element, int width, int row_tiles, int depth, typename T>
__device__ void multiply_accumulators(Accumulator (&sums)[row_tiles][width / 8],
                                      const Accumulator (&factors)[row_tiles][depth / 8], const T* b, int stride) {
    using Core = TensorCore<Element>;
    ESPALIER_UNROLL
    for (int k = 0; k < depth; k += 16) {
        typename Core::A left[row_tiles];
        ESPALIER_UNROLL
        for (int m = 0; m < row_tiles; ++m) {
            Core::from_accumulators(left[m], factors[m][k / 8], factors[m][k / 8 + 1]);
        }
        ESPALIER_UNROLL
        for (int n = 0; n < width; n += 16) {
            typename Core::B right;
            Core::load_b(right, b + k * stride + n, stride);
            ESPALIER_UNROLL
            for (int m = 0; m < row_tiles; ++m) Core::multiply(sums[m][n / 8], sums[m][n / 8 + 1], left[m], right);
        }
    }
}

/// Writes 16 rows from `first` on, scaled, from accumulators to a head.
template <int width, typename T>
__device__ void store_rows(const HeadRows<T>& head, int first, const Accumulator (&values)[width / 8],
                           const float (&scales)[2], const AttentionSizes& sizes) {
    const LanePlace place;
    ESPALIER_UNROLL
    for (int lower = 0; lower < 2; ++lower) {
        const int token = first + place.row + 8 * lower;
        if (token >= sizes.tokens) continue;
        T* const row = head.data + static_cast<std::size_t>(token) * head.stride;
        ESPALIER_UNROLL
        for (int n = 0; n < width / 8; ++n) {
            ESPALIER_UNROLL
            for (int i = 0; i < 2; ++i) {
                const int column = n * 8 + 2 * place.pair + i;
                if (column < sizes.head_size) row[column] = from_float<T>(values[n].v[2 * lower + i] * scales[lower]);
            }
        }
    }
}

/// visitor.template operator()<Element, width>() with the kind of elements of `dtype` and the head size rounded up.
template <typename Visitor>
void with_attention_kernel(DType dtype, Float32Products products, std::size_t head_size, const Visitor& visitor) {
    const auto with_width = [&]<typename Element>() {
        if (head_size <= 64)
            visitor.template operator()<Element, 64>();
        else if (head_size <= 128)
            visitor.template operator()<Element, 128>();
        else
            visitor.template operator()<Element, 256>();
    };
    if (dtype == DType::bf16)
        with_width.template operator()<bfloat16>();
    else if (dtype == DType::f16)
        with_width.template operator()<half>();
    else if (products == Float32Products::tf32)
        with_width.template operator()<Tf32>();
    else
        with_width.template operator()<Tf32Split>();
}

/// Throws unless the tensors of a call fit together.
AttentionSizes check_attention(TensorView q, TensorView k, TensorView v, TensorView out, TensorView log_sum_exp,
                               const AttentionShape& shape);

/// Of one product of all query heads with the keys up to each query.
double lower_triangle_flops(TensorView q);

}  // namespace espalier::cuda
