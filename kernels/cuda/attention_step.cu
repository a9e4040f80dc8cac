// Attention of one new token of each of several sequences to the keys and values before it, which are kept: bound by
// reading them. Each warp takes every fourth key with a running maximum and sum; the warps' results are joined.
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/reduce.cuh"

namespace espalier {

namespace {

using namespace cuda;

constexpr int step_warps = 4;
constexpr int step_threads = step_warps * warp_size;
constexpr int widest_head = 256;
constexpr int of_lane = widest_head / warp_size;

template <typename T>
struct StepArguments {
    const T *q, *k, *v;
    T *key_cache, *value_cache, *out;
    std::size_t capacity, position;
    int query_heads, key_value_heads, head_size;
    float scale;
};

/// A block takes one query head of one sequence.
template <typename T>
__global__ void __launch_bounds__(step_threads) attention_step_kernel(StepArguments<T> a) {
    ESPALIER_SHARED_ARRAY(float, maxima, step_warps);
    ESPALIER_SHARED_ARRAY(float, sums, step_warps);
    ESPALIER_SHARED_ARRAY(float, results, step_warps* widest_head);
    const int lane = static_cast<int>(threadIdx.x) % warp_size, warp = static_cast<int>(threadIdx.x) / warp_size;
    const std::size_t sequence = blockIdx.x / a.query_heads;
    const int head = static_cast<int>(blockIdx.x) % a.query_heads, group = a.query_heads / a.key_value_heads;
    const std::size_t width = static_cast<std::size_t>(a.key_value_heads) * a.head_size;
    const std::size_t offset = static_cast<std::size_t>(head / group) * a.head_size;
    const T* const query = a.q + (sequence * a.query_heads + head) * a.head_size;
    const T* const new_key = a.k + sequence * width + offset;
    const T* const new_value = a.v + sequence * width + offset;
    T* const keys = a.key_cache + sequence * a.capacity * width + offset;
    T* const values = a.value_cache + sequence * a.capacity * width + offset;
    float wanted[of_lane], sum_of_values[of_lane];
    ESPALIER_UNROLL
    for (int i = 0; i < of_lane; ++i) {
        const int d = lane + i * warp_size;
        wanted[i] = d < a.head_size ? to_float(query[d]) : 0.0F;
        sum_of_values[i] = 0;
    }
    float largest = -INFINITY, sum = 0;
    for (std::size_t t = warp; t <= a.position; t += step_warps) {
        // The new ones from where they are: another block may be writing them into the caches.
        const T* const key = t == a.position ? new_key : keys + t * width;
        const T* const value = t == a.position ? new_value : values + t * width;
        float product = 0;
        ESPALIER_UNROLL
        for (int i = 0; i < of_lane; ++i) {
            const int d = lane + i * warp_size;
            if (d < a.head_size) product += wanted[i] * to_float(key[d]);
        }
        const float score = reduce_in_warp(product, Sum()) * a.scale, before = largest;
        largest = fmaxf(before, score);
        const float shrinks = expf(before - largest), weight = expf(score - largest);
        sum = sum * shrinks + weight;
        ESPALIER_UNROLL
        for (int i = 0; i < of_lane; ++i) {
            const int d = lane + i * warp_size;
            if (d < a.head_size) sum_of_values[i] = sum_of_values[i] * shrinks + weight * to_float(value[d]);
        }
    }
    if (lane == 0) {
        maxima[warp] = largest;
        sums[warp] = sum;
    }
    ESPALIER_UNROLL
    for (int i = 0; i < of_lane; ++i) results[warp * widest_head + lane + i * warp_size] = sum_of_values[i];
    __syncthreads();
    float of_all = maxima[0];
    ESPALIER_UNROLL
    for (int w = 1; w < step_warps; ++w) of_all = fmaxf(of_all, maxima[w]);
    for (int d = static_cast<int>(threadIdx.x); d < a.head_size; d += step_threads) {
        float total = 0, result = 0;
        ESPALIER_UNROLL
        for (int w = 0; w < step_warps; ++w) {
            const float share = expf(maxima[w] - of_all);
            total += share * sums[w];
            result += share * results[w * widest_head + d];
        }
        a.out[(sequence * a.query_heads + head) * a.head_size + d] = from_float<T>(result / total);
        if (head % group != 0) continue;
        keys[a.position * width + d] = new_key[d];
        values[a.position * width + d] = new_value[d];
    }
}

}  // namespace

void CudaDevice::attention_step(TensorView q, TensorView k, TensorView v, const AttentionShape& shape,
                                std::size_t position, TensorView key_cache, TensorView value_cache, TensorView out) {
    const std::size_t sequences = q.rows, width = shape.key_value_heads * shape.head_size;
    if (sequences == 0) return;
    const std::size_t capacity = key_cache.rows / sequences;
    require(q.columns == shape.query_heads * shape.head_size && k.columns == width && v.size() == k.size() &&
                out.size() == q.size() && k.rows == sequences && key_cache.columns == width &&
                value_cache.size() == key_cache.size() && key_cache.rows == sequences * capacity && position < capacity,
            "shapes of attention_step");
    if (shape.head_size > widest_head) throw InputError("GPUs generate with heads of at most 256 dimensions");
    with_type(q.dtype, [&]<typename T>() {
        launch("attention_step", attention_step_kernel<T>, {to_unsigned(sequences * shape.query_heads), step_threads},
               stream_,
               StepArguments<T>{as<const T>(q), as<const T>(k), as<const T>(v), as<T>(key_cache), as<T>(value_cache),
                                as<T>(out), capacity, position, static_cast<int>(shape.query_heads),
                                static_cast<int>(shape.key_value_heads), static_cast<int>(shape.head_size),
                                1.0F / std::sqrt(static_cast<float>(shape.head_size))});
    });
    flops_ += 4.0 * static_cast<double>(q.size()) * static_cast<double>(position + 1);
}

}  // namespace espalier
