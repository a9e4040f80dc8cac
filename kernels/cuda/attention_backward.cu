// Backward pass of causal attention, without atomics: one kernel sums the gradients of a tile of keys and values over
// all later queries of all heads of their group, another those of a tile of queries over all earlier keys. Both rebuild
// the probabilities from the kept log-sum-exp.
//   P = exp(scale q k^T - lse),  dP = dout v^T,  dS = P (dP - delta) scale,  delta = rowsum(dout out)
//   dv = P^T dout,  dk = dS^T q,  dq = dS k
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/cuda_device.h"

namespace espalier {

namespace {

using namespace cuda;

/// A warp takes 16 rows of a tile; wide heads leave room for two warps only.
template <typename Element, int width>
struct Tiles {
    static constexpr int warps = width == 256 ? 2 : 4;
    static constexpr int threads = warps * warp_size;
    static constexpr int rows = warps * 16;  ///< queries of a tile, and keys
    static constexpr int stride = width + row_padding<Element>;
    static constexpr std::size_t shared_bytes = 4 * rows * stride * sizeof(Storage<Element>) + 2 * rows * sizeof(float);
};

template <typename T>
struct BackwardArguments {
    const T* q;
    const T* k;
    const T* v;
    const T* dout;
    const float* log_sum_exp;
    const float* delta;
    T* dq;
    T* dk;
    T* dv;
    AttentionSizes sizes;
};

constexpr int delta_threads = 128;

/// delta[head, token] = sum of dout * out over the head; a warp takes one head of one token.
template <typename T>
__global__ void __launch_bounds__(delta_threads)
    delta_kernel(const T* dout, const T* out, AttentionSizes sizes, float* delta) {
    const int lane = static_cast<int>(threadIdx.x) % warp_size;
    const std::size_t item = (std::size_t{blockIdx.x} * delta_threads + threadIdx.x) / warp_size;
    const std::size_t heads = static_cast<std::size_t>(sizes.query_heads);
    if (item >= heads * static_cast<std::size_t>(sizes.tokens)) return;
    const std::size_t first = item * static_cast<std::size_t>(sizes.head_size);
    float sum = 0;
    for (int j = lane; j < sizes.head_size; j += warp_size) sum += to_float(dout[first + j]) * to_float(out[first + j]);
    sum = reduce_in_warp(sum, Sum());
    if (lane == 0) delta[item % heads * sizes.tokens + item / heads] = sum;
}

/// Pointers into shared memory: four tiles of heads, and a number for each query of a tile twice.
template <typename T, typename Size>
struct SharedTiles {
    T* first = dynamic_shared<T>();
    T* second = first + Size::rows * Size::stride;
    T* third = second + Size::rows * Size::stride;
    T* fourth = third + Size::rows * Size::stride;
    float* log_sum_exp = reinterpret_cast<float*>(fourth + Size::rows * Size::stride);
    float* delta = log_sum_exp + Size::rows;
};

template <typename Size>
__device__ void load_query_numbers(float* to, const float* of_head, int first, int tokens) {
    for (int i = static_cast<int>(threadIdx.x); i < Size::rows; i += Size::threads) {
        to[i] = first + i < tokens ? of_head[first + i] : 0.0F;
    }
}

template <typename Element, int width>
__global__ void __launch_bounds__(Tiles<Element, width>::threads)
    key_value_gradient_kernel(BackwardArguments<Storage<Element>> a) {
    using T = Storage<Element>;
    using Size = Tiles<Element, width>;
    constexpr int padding = row_padding<Element>, rows = Size::rows;
    const SharedTiles<T, Size> shared;
    const LanePlace place;
    const int key_value_head = static_cast<int>(blockIdx.y), first_key = static_cast<int>(blockIdx.x) * rows;
    const int my_rows = static_cast<int>(threadIdx.x) / warp_size * 16;
    const std::size_t q_stride = static_cast<std::size_t>(a.sizes.query_heads) * a.sizes.head_size;
    const std::size_t k_stride = static_cast<std::size_t>(a.sizes.key_value_heads) * a.sizes.head_size;
    const std::size_t key_offset = static_cast<std::size_t>(key_value_head) * a.sizes.head_size;
    T* const k_tile = shared.first;
    T* const v_tile = shared.second;
    T* const q_tile = shared.third;
    T* const dout_tile = shared.fourth;
    load_tile<rows, width, padding, Size::threads>(k_tile, HeadRows<const T>{a.k + key_offset, k_stride}, first_key,
                                                   a.sizes);
    load_tile<rows, width, padding, Size::threads>(v_tile, HeadRows<const T>{a.v + key_offset, k_stride}, first_key,
                                                   a.sizes);
    const float scale = a.sizes.scale * log2_of_e;
    Accumulator dk[1][width / 8], dv[1][width / 8];
    for (int in_group = 0; in_group < a.sizes.group(); ++in_group) {
        const int head = key_value_head * a.sizes.group() + in_group;
        const HeadRows<const T> q{a.q + head * a.sizes.head_size, q_stride};
        const HeadRows<const T> dout{a.dout + head * a.sizes.head_size, q_stride};
        const std::size_t numbers = static_cast<std::size_t>(head) * a.sizes.tokens;
        for (int first_query = first_key; first_query < a.sizes.tokens; first_query += rows) {
            __syncthreads();
            load_tile<rows, width, padding, Size::threads>(q_tile, q, first_query, a.sizes);
            load_tile<rows, width, padding, Size::threads>(dout_tile, dout, first_query, a.sizes);
            commit_copies();
            load_query_numbers<Size>(shared.log_sum_exp, a.log_sum_exp + numbers, first_query, a.sizes.tokens);
            load_query_numbers<Size>(shared.delta, a.delta + numbers, first_query, a.sizes.tokens);
            wait_for_copies<0>();
            __syncthreads();
            // Transposed: rows are keys, columns queries, so that both serve as factors from their accumulators.
            Accumulator probabilities[1][rows / 8], gradients[1][rows / 8];
            multiply_transposed<Element, width, 1, rows>(probabilities, k_tile + my_rows * Size::stride, q_tile,
                                                         Size::stride);
            multiply_transposed<Element, width, 1, rows>(gradients, v_tile + my_rows * Size::stride, dout_tile,
                                                         Size::stride);
            ESPALIER_UNROLL
            for (int n = 0; n < rows / 8; ++n) {
                ESPALIER_UNROLL
                for (int i = 0; i < 4; ++i) {
                    const int column = n * 8 + 2 * place.pair + i % 2, query = first_query + column;
                    const int key = first_key + my_rows + place.row + i / 2 * 8;
                    const bool counts = key <= query && query < a.sizes.tokens;
                    float& p = probabilities[0][n].v[i];
                    p = counts ? exp2f(p * scale - shared.log_sum_exp[column] * log2_of_e) : 0.0F;
                    gradients[0][n].v[i] = p * (gradients[0][n].v[i] - shared.delta[column]);
                }
            }
            multiply_accumulators<Element, width, 1, rows>(dv, probabilities, dout_tile, Size::stride);
            multiply_accumulators<Element, width, 1, rows>(dk, gradients, q_tile, Size::stride);
        }
    }
    const float as_they_are[2] = {1, 1}, scaled[2] = {a.sizes.scale, a.sizes.scale};
    store_rows<width>(HeadRows<T>{a.dv + key_offset, k_stride}, first_key + my_rows, dv[0], as_they_are, a.sizes);
    store_rows<width>(HeadRows<T>{a.dk + key_offset, k_stride}, first_key + my_rows, dk[0], scaled, a.sizes);
}

template <typename Element, int width>
__global__ void __launch_bounds__(Tiles<Element, width>::threads)
    query_gradient_kernel(BackwardArguments<Storage<Element>> a) {
    using T = Storage<Element>;
    using Size = Tiles<Element, width>;
    constexpr int padding = row_padding<Element>, rows = Size::rows;
    const SharedTiles<T, Size> shared;
    const LanePlace place;
    const int head = static_cast<int>(blockIdx.y);
    const int first_query = static_cast<int>(gridDim.x - 1 - blockIdx.x) * rows;
    const int my_rows = static_cast<int>(threadIdx.x) / warp_size * 16;
    const std::size_t q_stride = static_cast<std::size_t>(a.sizes.query_heads) * a.sizes.head_size;
    const std::size_t k_stride = static_cast<std::size_t>(a.sizes.key_value_heads) * a.sizes.head_size;
    const std::size_t query_offset = static_cast<std::size_t>(head) * a.sizes.head_size;
    const std::size_t key_offset = static_cast<std::size_t>(head / a.sizes.group()) * a.sizes.head_size;
    const HeadRows<const T> k{a.k + key_offset, k_stride}, v{a.v + key_offset, k_stride};
    T* const q_tile = shared.first;
    T* const dout_tile = shared.second;
    T* const k_tile = shared.third;
    T* const v_tile = shared.fourth;
    const std::size_t numbers = static_cast<std::size_t>(head) * a.sizes.tokens;
    load_tile<rows, width, padding, Size::threads>(q_tile, HeadRows<const T>{a.q + query_offset, q_stride}, first_query,
                                                   a.sizes);
    load_tile<rows, width, padding, Size::threads>(dout_tile, HeadRows<const T>{a.dout + query_offset, q_stride},
                                                   first_query, a.sizes);
    load_query_numbers<Size>(shared.log_sum_exp, a.log_sum_exp + numbers, first_query, a.sizes.tokens);
    load_query_numbers<Size>(shared.delta, a.delta + numbers, first_query, a.sizes.tokens);
    const float scale = a.sizes.scale * log2_of_e;
    Accumulator dq[1][width / 8];
    for (int first_key = 0; first_key < min(first_query + rows, a.sizes.tokens); first_key += rows) {
        __syncthreads();
        load_tile<rows, width, padding, Size::threads>(k_tile, k, first_key, a.sizes);
        load_tile<rows, width, padding, Size::threads>(v_tile, v, first_key, a.sizes);
        commit_copies();
        wait_for_copies<0>();
        __syncthreads();
        Accumulator probabilities[1][rows / 8], gradients[1][rows / 8];
        multiply_transposed<Element, width, 1, rows>(probabilities, q_tile + my_rows * Size::stride, k_tile,
                                                     Size::stride);
        multiply_transposed<Element, width, 1, rows>(gradients, dout_tile + my_rows * Size::stride, v_tile,
                                                     Size::stride);
        ESPALIER_UNROLL
        for (int n = 0; n < rows / 8; ++n) {
            ESPALIER_UNROLL
            for (int i = 0; i < 4; ++i) {
                const int row = my_rows + place.row + i / 2 * 8;
                const int key = first_key + n * 8 + 2 * place.pair + i % 2;
                const float lse = shared.log_sum_exp[row] * log2_of_e;
                const float p = key <= first_query + row ? exp2f(probabilities[0][n].v[i] * scale - lse) : 0.0F;
                gradients[0][n].v[i] = p * (gradients[0][n].v[i] - shared.delta[row]);
            }
        }
        multiply_accumulators<Element, width, 1, rows>(dq, gradients, k_tile, Size::stride);
    }
    const float scaled[2] = {a.sizes.scale, a.sizes.scale};
    store_rows<width>(HeadRows<T>{a.dq + query_offset, q_stride}, first_query + my_rows, dq[0], scaled, a.sizes);
}

}  // namespace

void CudaDevice::attention_backward(TensorView q, TensorView k, TensorView v, TensorView out, TensorView log_sum_exp,
                                    TensorView dout, const AttentionShape& shape, TensorView dq, TensorView dk,
                                    TensorView dv) {
    AttentionSizes sizes = check_attention(q, k, v, out, log_sum_exp, shape);
    require(dout.size() == q.size() && dq.size() == q.size() && dk.size() == k.size() && dv.size() == k.size(),
            "shapes of attention_backward");
    require(dout.dtype == q.dtype && dq.dtype == q.dtype && dk.dtype == q.dtype && dv.dtype == q.dtype,
            "types of attention_backward");
    if (q.size() == 0) return;
    sizes.aligned = sizes.aligned && are_aligned({dout.data});
    const Tensor delta = make_tensor(DType::f32, shape.query_heads, q.rows);
    const std::size_t items = shape.query_heads * q.rows, per_block = delta_threads / warp_size;
    with_type(q.dtype, [&]<typename T>() {
        launch("attention_backward", delta_kernel<T>, {to_unsigned((items + per_block - 1) / per_block), delta_threads},
               stream_, as<T>(dout), as<T>(out), sizes, delta.view().floats());
    });
    with_attention_kernel(q.dtype, float32_products_, shape.head_size, [&]<typename Element, int width>() {
        using T = Storage<Element>;
        using Size = Tiles<Element, width>;
        const BackwardArguments<T> arguments{
            as<T>(q),  as<T>(k),  as<T>(v),  as<T>(dout), log_sum_exp.floats(), delta.view().floats(),
            as<T>(dq), as<T>(dk), as<T>(dv), sizes};
        const unsigned tiles = to_unsigned((q.rows + Size::rows - 1) / Size::rows);
        launch("attention_backward", key_value_gradient_kernel<Element, width>,
               {{tiles, to_unsigned(shape.key_value_heads)}, Size::threads, Size::shared_bytes}, stream_, arguments);
        launch("attention_backward", query_gradient_kernel<Element, width>,
               {{tiles, to_unsigned(shape.query_heads)}, Size::threads, Size::shared_bytes}, stream_, arguments);
    });
    // Five products over the lower triangle; the two that are computed twice count once.
    flops_ += 5.0 * lower_triangle_flops(q);
}

}  // namespace espalier
