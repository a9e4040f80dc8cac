// Attention of one new token of each of several sequences to the keys and values before it, which are kept.
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/exponential.h"
#include "kernels/cpu/parallel.h"

#include <algorithm>
#include <cmath>

namespace espalier {

namespace {

struct StepScratch {};

}  // namespace

void CpuDevice::attention_step(TensorView q, TensorView k, TensorView v, const AttentionShape& shape,
                               std::size_t position, TensorView key_cache, TensorView value_cache, TensorView out) {
    const std::size_t sequences = q.rows, head_size = shape.head_size, width = shape.key_value_heads * head_size;
    const std::size_t capacity = sequences == 0 ? 0 : key_cache.rows / sequences;
    require(q.columns == shape.query_heads * head_size && k.columns == width && v.size() == k.size() &&
                out.size() == q.size() && k.rows == sequences && key_cache.columns == width &&
                value_cache.size() == key_cache.size() && key_cache.rows == sequences * capacity &&
                (sequences == 0 || position < capacity),
            "shapes of attention_step");
    const std::size_t group = shape.query_heads / shape.key_value_heads, valid = position + 1;
    const float scale = 1.0F / std::sqrt(static_cast<float>(head_size));
    const double flops = 4.0 * static_cast<double>(q.size()) * static_cast<double>(valid);
    cpu::parallel_for(
        sequences * shape.key_value_heads,
        [&](std::size_t item) {
            const std::size_t sequence = item / shape.key_value_heads,
                              offset = item % shape.key_value_heads * head_size;
            float* const keys = key_cache.floats() + sequence * capacity * width + offset;
            float* const values = value_cache.floats() + sequence * capacity * width + offset;
            std::copy_n(k.floats() + sequence * width + offset, head_size, keys + position * width);
            std::copy_n(v.floats() + sequence * width + offset, head_size, values + position * width);
            float* const scores = cpu::thread_scratch<StepScratch>(valid);
            for (std::size_t head = 0; head < group; ++head) {
                const std::size_t place = sequence * q.columns + offset * group + head * head_size;
                const float* const query = q.floats() + place;
                float* const result = out.floats() + place;
                float largest = -INFINITY;
                for (std::size_t t = 0; t < valid; ++t) {
                    const float* const key = keys + t * width;
                    float product = 0;
#pragma omp simd reduction(+ : product)
                    for (std::size_t j = 0; j < head_size; ++j) product += query[j] * key[j];
                    scores[t] = product * scale;
                    largest = std::max(largest, scores[t]);
                }
                float sum = 0;
#pragma omp simd reduction(+ : sum)
                for (std::size_t t = 0; t < valid; ++t) {
                    scores[t] = cpu::exponential(scores[t] - largest);
                    sum += scores[t];
                }
                std::fill_n(result, head_size, 0.0F);
                for (std::size_t t = 0; t < valid; ++t) {
                    const float weight = scores[t] / sum;
                    const float* const value = values + t * width;
#pragma omp simd
                    for (std::size_t j = 0; j < head_size; ++j) result[j] += weight * value[j];
                }
            }
        },
        flops / 2);
    flops_ += flops;
}

}  // namespace espalier
