#pragma once
/// The kernels of attention's backward pass, without atomics: one sums the gradients of a tile of keys and values over
/// all later queries of all heads of their group, another those of a tile of queries over all earlier keys. Both
/// rebuild the probabilities from the kept log-sum-exp.
///   P = exp(scale q k^T - lse),  dP = dout v^T,  dS = P (dP - delta) scale,  delta = rowsum(dout out)
///   dv = P^T dout,  dk = dS^T q,  dq = dS k
#include "kernels/cuda/attention_backward.cuh"

namespace espalier::cuda {

/// A block keeps `rows` rows of two matrices, of which each warp takes 16 for each of `row_tiles`, and walks over tiles
/// of `columns` rows of two others; the next tile is copied while one is computed on.
template <typename Element, int width, int warps_, int row_tiles_, int columns_>
struct Walk {
    static constexpr int warps = warps_, row_tiles = row_tiles_, columns = columns_;
    static constexpr int threads = warps * warp_size;
    static constexpr int rows = warps * 16 * row_tiles;
    static constexpr int stride = width + row_padding<Element>;
    static constexpr int row_elements = rows * stride, column_elements = columns * stride;
    static constexpr std::size_t tile_bytes = (2 * row_elements + 4 * column_elements) * sizeof(Storage<Element>);
};

/// 16-bit elements leave room for two blocks of four warps on a multiprocessor, float32 for one of eight where a block
/// may have `large` shared memory (H100), else of four (A100); wide heads take so many registers that two warps fill
/// it.
template <typename Element>
inline constexpr bool is_small = sizeof(Storage<Element>) == 2;
template <typename Element, int width, bool large>
inline constexpr int warps_of = width == 256                  ? 2
                                : is_small<Element> || !large ? 4
                                                              : 8;
template <typename Element, int width, bool large>
inline constexpr int columns_of = width == 256 && !is_small<Element> && !large ? 16 : 32;
/// Rows are keys, columns queries.
template <typename Element, int width, bool large>
using KeyWalk = Walk<Element, width, warps_of<Element, width, large>, 1,
                     is_small<Element> && width <= 128 ? 64 : columns_of<Element, width, large>>;
/// Rows are queries, columns keys.
template <typename Element, int width, bool large>
using QueryWalk = Walk<Element, width, warps_of<Element, width, large>, is_small<Element> && width <= 128 ? 2 : 1,
                       columns_of<Element, width, large>>;
template <typename Keys>
inline constexpr std::size_t key_walk_bytes = Keys::tile_bytes + 4 * Keys::columns * sizeof(float);

template <typename Element, int width, bool large>
__global__ void __launch_bounds__(KeyWalk<Element, width, large>::threads)
    key_value_gradient_kernel(BackwardArguments<Storage<Element>> a) {
    using T = Storage<Element>;
    using Size = KeyWalk<Element, width, large>;
    constexpr int padding = row_padding<Element>, rows = Size::rows, columns = Size::columns;
    T* const k_tile = dynamic_shared<T>();
    T* const v_tile = k_tile + Size::row_elements;
    T* const q_tiles = v_tile + Size::row_elements;
    T* const dout_tiles = q_tiles + 2 * Size::column_elements;
    float* const numbers = reinterpret_cast<float*>(dout_tiles + 2 * Size::column_elements);  // lse and delta, twice
    const LanePlace place;
    // The keys with the most queries come first, of all heads: the others fill the gaps at the end.
    const int key_value_head = static_cast<int>(blockIdx.x), first_key = static_cast<int>(blockIdx.y) * rows;
    const int my_rows = static_cast<int>(threadIdx.x) / warp_size * 16;
    const std::size_t q_stride = static_cast<std::size_t>(a.sizes.query_heads) * a.sizes.head_size;
    const std::size_t k_stride = static_cast<std::size_t>(a.sizes.key_value_heads) * a.sizes.head_size;
    const std::size_t key_offset = static_cast<std::size_t>(key_value_head) * a.sizes.head_size;
    // Every query from the first key on, for each head of the group in turn.
    const int tiles = (a.sizes.tokens - first_key + columns - 1) / columns, steps = tiles * a.sizes.group();
    const auto start_copies = [&](int step, int buffer) {
        const int head = key_value_head * a.sizes.group() + step / tiles, first = first_key + step % tiles * columns;
        const HeadRows<const T> q{a.q + head * a.sizes.head_size, q_stride};
        const HeadRows<const T> dout{a.dout + head * a.sizes.head_size, q_stride};
        load_tile<columns, width, padding, Size::threads>(q_tiles + buffer * Size::column_elements, q, first, a.sizes);
        load_tile<columns, width, padding, Size::threads>(dout_tiles + buffer * Size::column_elements, dout, first,
                                                          a.sizes);
        const std::size_t of_head = static_cast<std::size_t>(head) * a.sizes.tokens;
        for (int i = static_cast<int>(threadIdx.x); i < columns; i += Size::threads) {
            const bool exists = first + i < a.sizes.tokens;
            float* const to = numbers + buffer * 2 * columns + i;
            to[0] = exists ? a.log_sum_exp[of_head + first + i] * log2_of_e : 0.0F;
            to[columns] = exists ? a.delta[of_head + first + i] : 0.0F;
        }
    };
    load_tile<rows, width, padding, Size::threads>(k_tile, HeadRows<const T>{a.k + key_offset, k_stride}, first_key,
                                                   a.sizes);
    load_tile<rows, width, padding, Size::threads>(v_tile, HeadRows<const T>{a.v + key_offset, k_stride}, first_key,
                                                   a.sizes);
    start_copies(0, 0);
    commit_copies();
    const float scale = a.sizes.scale * log2_of_e;
    Accumulator dk[1][width / 8], dv[1][width / 8];
    for (int step = 0; step < steps; ++step) {
        const int buffer = step % 2, first_query = first_key + step % tiles * columns;
        if (step + 1 < steps) start_copies(step + 1, 1 - buffer);
        commit_copies();
        wait_for_copies<1>();
        __syncthreads();
        const T* const q_tile = q_tiles + buffer * Size::column_elements;
        const T* const dout_tile = dout_tiles + buffer * Size::column_elements;
        const float* const log_sum_exp = numbers + buffer * 2 * columns;
        const float* const delta = log_sum_exp + columns;
        // Transposed: rows are keys, columns queries, so that both serve as factors from their accumulators.
        Accumulator probabilities[1][columns / 8], gradients[1][columns / 8];
        multiply_transposed<Element, width, 1, columns>(probabilities, k_tile + my_rows * Size::stride, q_tile,
                                                        Size::stride);
        multiply_transposed<Element, width, 1, columns>(gradients, v_tile + my_rows * Size::stride, dout_tile,
                                                        Size::stride);
        const bool all_count = first_query >= first_key + rows && first_query + columns <= a.sizes.tokens;
        ESPALIER_UNROLL
        for (int n = 0; n < columns / 8; ++n) {
            ESPALIER_UNROLL
            for (int i = 0; i < 4; ++i) {
                const int column = n * 8 + 2 * place.pair + i % 2, query = first_query + column;
                const int key = first_key + my_rows + place.row + i / 2 * 8;
                const bool counts = all_count || (key <= query && query < a.sizes.tokens);
                float& p = probabilities[0][n].v[i];
                p = counts ? approximate_exp2(p * scale - log_sum_exp[column]) : 0.0F;
                gradients[0][n].v[i] = p * (gradients[0][n].v[i] - delta[column]);
            }
        }
        multiply_accumulators<Element, width, 1, columns>(dv, probabilities, dout_tile, Size::stride);
        multiply_accumulators<Element, width, 1, columns>(dk, gradients, q_tile, Size::stride);
        __syncthreads();
    }
    wait_for_copies<0>();
    const float as_they_are[2] = {1, 1}, scaled[2] = {a.sizes.scale, a.sizes.scale};
    store_rows<width>(HeadRows<T>{a.dv + key_offset, k_stride}, first_key + my_rows, dv[0], as_they_are, a.sizes);
    store_rows<width>(HeadRows<T>{a.dk + key_offset, k_stride}, first_key + my_rows, dk[0], scaled, a.sizes);
}

template <typename Element, int width, bool large>
__global__ void __launch_bounds__(QueryWalk<Element, width, large>::threads)
    query_gradient_kernel(BackwardArguments<Storage<Element>> a) {
    using T = Storage<Element>;
    using Size = QueryWalk<Element, width, large>;
    constexpr int padding = row_padding<Element>, rows = Size::rows, columns = Size::columns;
    constexpr int row_tiles = Size::row_tiles;
    T* const q_tile = dynamic_shared<T>();
    T* const dout_tile = q_tile + Size::row_elements;
    T* const k_tiles = dout_tile + Size::row_elements;
    T* const v_tiles = k_tiles + 2 * Size::column_elements;
    const LanePlace place;
    const int head = static_cast<int>(blockIdx.x);
    const int first_query = static_cast<int>(gridDim.y - 1 - blockIdx.y) * rows;  // the longest rows first
    const int my_rows = static_cast<int>(threadIdx.x) / warp_size * 16 * row_tiles;
    const std::size_t q_stride = static_cast<std::size_t>(a.sizes.query_heads) * a.sizes.head_size;
    const std::size_t k_stride = static_cast<std::size_t>(a.sizes.key_value_heads) * a.sizes.head_size;
    const std::size_t query_offset = static_cast<std::size_t>(head) * a.sizes.head_size;
    const std::size_t key_offset = static_cast<std::size_t>(head / a.sizes.group()) * a.sizes.head_size;
    const HeadRows<const T> k{a.k + key_offset, k_stride}, v{a.v + key_offset, k_stride};
    const auto start_copies = [&](int first, int buffer) {
        load_tile<columns, width, padding, Size::threads>(k_tiles + buffer * Size::column_elements, k, first, a.sizes);
        load_tile<columns, width, padding, Size::threads>(v_tiles + buffer * Size::column_elements, v, first, a.sizes);
    };
    load_tile<rows, width, padding, Size::threads>(q_tile, HeadRows<const T>{a.q + query_offset, q_stride}, first_query,
                                                   a.sizes);
    load_tile<rows, width, padding, Size::threads>(dout_tile, HeadRows<const T>{a.dout + query_offset, q_stride},
                                                   first_query, a.sizes);
    start_copies(0, 0);
    commit_copies();
    float log_sum_exp[row_tiles][2], delta[row_tiles][2];
    const std::size_t numbers = static_cast<std::size_t>(head) * a.sizes.tokens;
    ESPALIER_UNROLL
    for (int i = 0; i < 2 * row_tiles; ++i) {
        const int query = first_query + my_rows + i / 2 * 16 + i % 2 * 8 + place.row;
        const bool exists = query < a.sizes.tokens;
        log_sum_exp[i / 2][i % 2] = exists ? a.log_sum_exp[numbers + query] * log2_of_e : 0.0F;
        delta[i / 2][i % 2] = exists ? a.delta[numbers + query] : 0.0F;
    }
    const float scale = a.sizes.scale * log2_of_e;
    const int last_key = min(first_query + rows, a.sizes.tokens);
    Accumulator dq[row_tiles][width / 8];
    for (int first_key = 0; first_key < last_key; first_key += columns) {
        const int buffer = first_key / columns % 2;
        if (first_key + columns < last_key) start_copies(first_key + columns, 1 - buffer);
        commit_copies();
        wait_for_copies<1>();
        __syncthreads();
        const T* const k_tile = k_tiles + buffer * Size::column_elements;
        const T* const v_tile = v_tiles + buffer * Size::column_elements;
        Accumulator probabilities[row_tiles][columns / 8], gradients[row_tiles][columns / 8];
        multiply_transposed<Element, width, row_tiles, columns>(probabilities, q_tile + my_rows * Size::stride, k_tile,
                                                                Size::stride);
        multiply_transposed<Element, width, row_tiles, columns>(gradients, dout_tile + my_rows * Size::stride, v_tile,
                                                                Size::stride);
        const bool all_count = first_key + columns <= first_query;
        ESPALIER_UNROLL
        for (int m = 0; m < row_tiles; ++m) {
            ESPALIER_UNROLL
            for (int n = 0; n < columns / 8; ++n) {
                ESPALIER_UNROLL
                for (int i = 0; i < 4; ++i) {
                    const int query = first_query + my_rows + m * 16 + place.row + i / 2 * 8;
                    const bool counts = all_count || first_key + n * 8 + 2 * place.pair + i % 2 <= query;
                    const float score = probabilities[m][n].v[i] * scale - log_sum_exp[m][i / 2];
                    const float p = counts ? approximate_exp2(score) : 0.0F;
                    gradients[m][n].v[i] = p * (gradients[m][n].v[i] - delta[m][i / 2]);
                }
            }
        }
        multiply_accumulators<Element, width, row_tiles, columns>(dq, gradients, k_tile, Size::stride);
        __syncthreads();
    }
    wait_for_copies<0>();
    const float scaled[2] = {a.sizes.scale, a.sizes.scale};
    ESPALIER_UNROLL
    for (int m = 0; m < row_tiles; ++m) {
        store_rows<width>(HeadRows<T>{a.dq + query_offset, q_stride}, first_query + my_rows + m * 16, dq[m], scaled,
                          a.sizes);
    }
}

template <typename Element, int width>
void launch_attention_backward(const BackwardArguments<Storage<Element>>& a, std::size_t shared_bytes_of_block,
                               cudaStream_t stream) {
    const auto tokens = static_cast<std::size_t>(a.sizes.tokens);
    const auto blocks = [&](int rows) {
        return to_unsigned((tokens + static_cast<std::size_t>(rows) - 1) / static_cast<std::size_t>(rows));
    };
    const auto run = [&]<bool large>() {
        using Keys = KeyWalk<Element, width, large>;
        launch("attention_backward", key_value_gradient_kernel<Element, width, large>,
               {{to_unsigned(a.sizes.key_value_heads), blocks(Keys::rows)}, Keys::threads, key_walk_bytes<Keys>},
               stream, a);
        using Queries = QueryWalk<Element, width, large>;
        launch("attention_backward", query_gradient_kernel<Element, width, large>,
               {{to_unsigned(a.sizes.query_heads), blocks(Queries::rows)}, Queries::threads, Queries::tile_bytes},
               stream, a);
    };
    static_assert(key_walk_bytes<KeyWalk<Element, width, false>> <= least_shared_bytes &&
                  QueryWalk<Element, width, false>::tile_bytes <= least_shared_bytes);
    if constexpr (is_small<Element>) {
        run.template operator()<false>();
    } else if (key_walk_bytes<KeyWalk<Element, width, true>> <= shared_bytes_of_block) {
        run.template operator()<true>();
    } else {
        run.template operator()<false>();
    }
}

/// An instantiation for heads of at most `width` elements.
#define ESPALIER_ATTENTION_BACKWARD(Element, width)                                                                  \
    template void launch_attention_backward<Element, width>(const BackwardArguments<Storage<Element>>&, std::size_t, \
                                                            cudaStream_t)

}  // namespace espalier::cuda
