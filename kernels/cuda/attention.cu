// Causal attention with grouped queries: a block keeps a tile of queries and walks over the keys up to its last query
// with the online softmax (FlashAttention-2, Dao 2023): the next tile of values is copied while scores are computed,
// the next tile of keys while values are added.
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/cuda_device.h"

#include <cmath>
#include <string>

namespace espalier {

namespace cuda {

AttentionSizes check_attention(TensorView q, TensorView k, TensorView v, TensorView out, TensorView log_sum_exp,
                               const AttentionShape& shape) {
    const std::size_t tokens = q.rows, head_size = shape.head_size;
    require(q.columns == shape.query_heads * head_size && k.columns == shape.key_value_heads * head_size &&
                v.size() == k.size() && out.size() == q.size() && k.rows == tokens &&
                log_sum_exp.size() == shape.query_heads * tokens && shape.query_heads % shape.key_value_heads == 0,
            "shapes of attention");
    require(q.dtype == k.dtype && q.dtype == v.dtype && q.dtype == out.dtype, "types of attention");
    if (head_size > 256) {
        throw InputError("config.json: head_dim " + std::to_string(head_size) +
                         " is more than the 256 that attention on a GPU knows; use --device cpu");
    }
    const bool aligned = are_aligned({q.data, k.data, v.data, out.data}) && head_size * bytes_of(q.dtype) % 16 == 0;
    return {static_cast<int>(tokens),
            static_cast<int>(shape.query_heads),
            static_cast<int>(shape.key_value_heads),
            static_cast<int>(head_size),
            aligned,
            1.0F / std::sqrt(static_cast<float>(head_size))};
}

double lower_triangle_flops(TensorView q) {
    return 2.0 * static_cast<double>(q.size()) * static_cast<double>(q.rows + 1) / 2.0;
}

}  // namespace cuda

namespace {

using namespace cuda;

constexpr int warps = 4, threads = warps * warp_size;

/// Tiles of one instantiation: as large as registers and shared memory allow.
template <typename Element, int width>
struct Tiles {
    static constexpr int row_tiles = sizeof(Storage<Element>) == 2 && width <= 128 ? 2 : 1;  ///< of 16 queries a warp
    static constexpr int queries = warps * 16 * row_tiles;
    static constexpr int keys = width == 256 ? 32 : 64;
    static constexpr int stride = width + row_padding<Element>;
    static constexpr std::size_t shared_bytes = (queries + 2 * keys) * stride * sizeof(Storage<Element>);
};

/// Running maximum of the rows of one 16-row tile that a lane holds, in units of log2, and the sum of the exponentials
/// in this lane's columns.
struct OnlineSoftmax {
    float largest[2] = {-INFINITY, -INFINITY};
    float sum[2] = {};

    /// Replaces scores by exp(scale (score - largest)) and scales what has been summed so far.
    template <int keys, int width>
    __device__ void update(Accumulator (&scores)[keys / 8], float scale, Accumulator (&out)[width / 8]) {
        ESPALIER_UNROLL
        for (int lower = 0; lower < 2; ++lower) {
            float tile_largest = -INFINITY;
            ESPALIER_UNROLL
            for (int n = 0; n < keys / 8; ++n) {
                tile_largest = fmaxf(tile_largest, fmaxf(scores[n].v[2 * lower], scores[n].v[2 * lower + 1]));
            }
            tile_largest = reduce_in_warp<4>(tile_largest, Maximum());
            const float new_largest = fmaxf(largest[lower], tile_largest * scale);
            const float factor = approximate_exp2(largest[lower] - new_largest);
            largest[lower] = new_largest;
            float tile_sum = 0;
            ESPALIER_UNROLL
            for (int n = 0; n < keys / 8; ++n) {
                ESPALIER_UNROLL
                for (int i = 2 * lower; i < 2 * lower + 2; ++i) {
                    scores[n].v[i] = approximate_exp2(scores[n].v[i] * scale - new_largest);
                    tile_sum += scores[n].v[i];
                }
            }
            sum[lower] = sum[lower] * factor + tile_sum;
            ESPALIER_UNROLL
            for (int n = 0; n < width / 8; ++n) {
                out[n].v[2 * lower] *= factor;
                out[n].v[2 * lower + 1] *= factor;
            }
        }
    }
};

template <typename T>
struct ForwardArguments {
    const T* q;
    const T* k;
    const T* v;
    T* out;
    float* log_sum_exp;
    AttentionSizes sizes;
};

/// Keys after their query do not count.
template <int keys>
__device__ void mask_later_keys(Accumulator (&scores)[keys / 8], int first_query, int first_key) {
    const LanePlace place;
    ESPALIER_UNROLL
    for (int n = 0; n < keys / 8; ++n) {
        ESPALIER_UNROLL
        for (int i = 0; i < 4; ++i) {
            const int key = first_key + n * 8 + 2 * place.pair + i % 2, query = first_query + place.row + i / 2 * 8;
            if (key > query) scores[n].v[i] = -INFINITY;
        }
    }
}

template <typename Element, int width>
__global__ void __launch_bounds__(threads) attention_kernel(ForwardArguments<Storage<Element>> a) {
    using T = Storage<Element>;
    using Size = Tiles<Element, width>;
    constexpr int padding = row_padding<Element>;
    T* const q_tile = dynamic_shared<T>();
    T* const k_tile = q_tile + Size::queries * Size::stride;
    T* const v_tile = k_tile + Size::keys * Size::stride;
    const int head = static_cast<int>(blockIdx.x), key_value_head = head / a.sizes.group();
    // The longest rows of all heads first: the others fill the gaps at the end.
    const int first_query = static_cast<int>(gridDim.y - 1 - blockIdx.y) * Size::queries;
    const std::size_t q_stride = static_cast<std::size_t>(a.sizes.query_heads) * a.sizes.head_size;
    const std::size_t k_stride = static_cast<std::size_t>(a.sizes.key_value_heads) * a.sizes.head_size;
    const HeadRows<const T> q{a.q + head * a.sizes.head_size, q_stride};
    const HeadRows<const T> k{a.k + key_value_head * a.sizes.head_size, k_stride};
    const HeadRows<const T> v{a.v + key_value_head * a.sizes.head_size, k_stride};
    const int last_key = min(first_query + Size::queries, a.sizes.tokens);
    const int first_row = first_query + static_cast<int>(threadIdx.x) / warp_size * 16 * Size::row_tiles;
    const T* const my_queries = q_tile + (first_row - first_query) * Size::stride;

    load_tile<Size::queries, width, padding, threads>(q_tile, q, first_query, a.sizes);
    load_tile<Size::keys, width, padding, threads>(k_tile, k, 0, a.sizes);
    commit_copies();
    Accumulator out[Size::row_tiles][width / 8];
    OnlineSoftmax softmax[Size::row_tiles];
    const float scale = a.sizes.scale * log2_of_e;
    for (int first_key = 0; first_key < last_key; first_key += Size::keys) {
        load_tile<Size::keys, width, padding, threads>(v_tile, v, first_key, a.sizes);
        commit_copies();
        wait_for_copies<1>();
        __syncthreads();
        Accumulator scores[Size::row_tiles][Size::keys / 8];
        multiply_transposed<Element, width, Size::row_tiles, Size::keys>(scores, my_queries, k_tile, Size::stride);
        __syncthreads();
        if (first_key + Size::keys < last_key) {
            load_tile<Size::keys, width, padding, threads>(k_tile, k, first_key + Size::keys, a.sizes);
        }
        commit_copies();
        ESPALIER_UNROLL
        for (int m = 0; m < Size::row_tiles; ++m) {
            if (first_key + Size::keys > first_row + m * 16) {
                mask_later_keys<Size::keys>(scores[m], first_row + m * 16, first_key);
            }
            softmax[m].template update<Size::keys, width>(scores[m], scale, out[m]);
        }
        wait_for_copies<1>();
        __syncthreads();
        multiply_accumulators<Element, width, Size::row_tiles, Size::keys>(out, scores, v_tile, Size::stride);
        __syncthreads();
    }
    wait_for_copies<0>();

    const HeadRows<T> result{a.out + head * a.sizes.head_size, q_stride};
    const LanePlace place;
    ESPALIER_UNROLL
    for (int m = 0; m < Size::row_tiles; ++m) {
        const int first = first_row + m * 16;
        const float sums[2] = {reduce_in_warp<4>(softmax[m].sum[0], Sum()),
                               reduce_in_warp<4>(softmax[m].sum[1], Sum())};
        const float scales[2] = {1.0F / sums[0], 1.0F / sums[1]};
        store_rows<width>(result, first, out[m], scales, a.sizes);
        ESPALIER_UNROLL
        for (int lower = 0; lower < 2; ++lower) {
            const int token = first + place.row + 8 * lower;
            if (place.pair != 0 || token >= a.sizes.tokens) continue;
            a.log_sum_exp[static_cast<std::size_t>(head) * a.sizes.tokens + token] =
                softmax[m].largest[lower] / log2_of_e + logf(sums[lower]);
        }
    }
}

}  // namespace

void CudaDevice::attention(TensorView q, TensorView k, TensorView v, const AttentionShape& shape, TensorView out,
                           TensorView log_sum_exp) {
    const AttentionSizes sizes = check_attention(q, k, v, out, log_sum_exp, shape);
    if (q.size() == 0) return;
    with_attention_kernel(q.dtype, float32_products_, shape.head_size, [&]<typename Element, int width>() {
        using T = Storage<Element>;
        using Size = Tiles<Element, width>;
        const unsigned tiles = to_unsigned((q.rows + Size::queries - 1) / Size::queries);
        launch("attention", attention_kernel<Element, width>,
               {{to_unsigned(shape.query_heads), tiles}, threads, Size::shared_bytes}, stream_,
               ForwardArguments<T>{as<T>(q), as<T>(k), as<T>(v), as<T>(out), log_sum_exp.floats(), sizes});
    });
    flops_ += 2.0 * lower_triangle_flops(q);
}

}  // namespace espalier
