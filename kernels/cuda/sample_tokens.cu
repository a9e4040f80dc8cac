// Tokens drawn from logits: a block takes a row.
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/philox.cuh"
#include "kernels/cuda/reduce.cuh"

namespace espalier {

namespace {

using namespace cuda;

constexpr int sample_threads = 256;

struct SampleArguments {
    const float* logits;
    std::size_t vocabulary;
    float inverse_temperature;  ///< 0: the most likely token
    double top_p;
    std::uint64_t seed, first_sequence;
    std::uint32_t position;
    std::uint64_t* tokens;
};

struct Row {
    const float* logits;
    std::size_t vocabulary;
    float largest, inverse_temperature;

    __device__ float weight(std::size_t i) const { return expf((logits[i] - largest) * inverse_temperature); }
    /// Of all weights that are not below `least`, on every thread.
    __device__ double sum_from(float least) const {
        double sum = 0;
        for (std::size_t i = threadIdx.x; i < vocabulary; i += sample_threads) {
            const float of_token = weight(i);
            if (of_token >= least) sum += static_cast<double>(of_token);
        }
        return reduce_in_block<sample_threads>(sum, 0.0, Sum());
    }
    /// The largest weight such that all that are not smaller have at least `share` of the sum: by halving the range of
    /// its bits, whose order is that of positive numbers.
    __device__ float least_of_nucleus(double share) const {
        const double wanted = share * sum_from(0);
        unsigned enough = 0, too_few = __float_as_uint(1.0F) + 1;  // the largest weight is 1
        while (too_few - enough > 1) {
            const unsigned middle = enough + (too_few - enough) / 2;
            if (sum_from(__uint_as_float(middle)) >= wanted)
                enough = middle;
            else
                too_few = middle;
        }
        return __uint_as_float(enough);
    }
};

struct FirstLargest {
    float value;
    unsigned token;
};

/// The first token of those with the largest logit, on every thread.
__device__ FirstLargest first_largest(const float* logits, std::size_t vocabulary) {
    float largest = -INFINITY;
    for (std::size_t i = threadIdx.x; i < vocabulary; i += sample_threads) largest = fmaxf(largest, logits[i]);
    largest = reduce_in_block<sample_threads>(largest, -INFINITY, Maximum());
    float first = INFINITY;  // exact: a vocabulary has fewer than 2^24 tokens
    for (std::size_t i = threadIdx.x; i < vocabulary; i += sample_threads) {
        if (logits[i] == largest) first = fminf(first, static_cast<float>(i));
    }
    first = -reduce_in_block<sample_threads>(-first, -INFINITY, Maximum());
    return {largest, first < INFINITY ? static_cast<unsigned>(first) : 0};
}

__global__ void __launch_bounds__(sample_threads) sample_tokens_kernel(SampleArguments a) {
    ESPALIER_SHARED_ARRAY(double, of_threads, sample_threads);
    const float* const logits = a.logits + std::size_t{blockIdx.x} * a.vocabulary;
    const FirstLargest largest = first_largest(logits, a.vocabulary);
    if (threadIdx.x == 0) a.tokens[blockIdx.x] = largest.token;
    if (a.inverse_temperature == 0) return;
    const Row row{logits, a.vocabulary, largest.value, a.inverse_temperature};
    const float least = a.top_p < 1 ? row.least_of_nucleus(a.top_p) : 0.0F;
    // Each thread sums tokens that follow each other, so that one thread has the one that is drawn.
    const std::size_t each = (a.vocabulary + sample_threads - 1) / sample_threads;
    const std::size_t begin = threadIdx.x * each, end = begin + each < a.vocabulary ? begin + each : a.vocabulary;
    const auto counts = [&](float weight) { return weight >= least && weight > 0.0F; };
    double mine = 0;
    for (std::size_t i = begin; i < end; ++i) {
        const float weight = row.weight(i);
        if (counts(weight)) mine += static_cast<double>(weight);
    }
    of_threads[threadIdx.x] = mine;
    __syncthreads();
    double before = 0, total = 0;
    for (unsigned thread = 0; thread < sample_threads; ++thread) {
        if (thread < threadIdx.x) before += of_threads[thread];
        total += of_threads[thread];
    }
    const std::uint64_t sequence = a.first_sequence + blockIdx.x;
    const PhiloxWords drawn = philox4x32({{a.position, static_cast<std::uint32_t>(sequence),
                                           static_cast<std::uint32_t>(sequence >> 32), draws_of_tokens}},
                                         a.seed);
    const double fraction =
        (static_cast<double>(drawn.words[0]) * 4294967296.0 + static_cast<double>(drawn.words[1] & ~0x7FFU)) /
        18446744073709551616.0;
    const double wanted = fraction * total;
    if (mine == 0 || wanted < before || wanted >= before + mine) return;
    std::size_t token = begin;
    double sum = before;
    for (std::size_t i = begin; i < end && sum <= wanted; ++i) {
        const float weight = row.weight(i);
        if (!counts(weight)) continue;
        sum += static_cast<double>(weight);
        token = i;
    }
    a.tokens[blockIdx.x] = token;
}

}  // namespace

void CudaDevice::sample_tokens(TensorView logits, const SamplingRule& rule, std::size_t first_sequence,
                               std::size_t position, TensorView tokens) {
    require(tokens.size() == logits.rows && tokens.dtype == DType::u64, "shapes of sample_tokens");
    if (logits.rows == 0) return;
    const float inverse = rule.temperature == 0 ? 0.0F : static_cast<float>(1 / rule.temperature);
    launch("sample_tokens", sample_tokens_kernel, {to_unsigned(logits.rows), sample_threads}, stream_,
           SampleArguments{logits.floats(), logits.columns, inverse, rule.top_p, rule.seed, first_sequence,
                           static_cast<std::uint32_t>(position), as<std::uint64_t>(tokens)});
}

}  // namespace espalier
