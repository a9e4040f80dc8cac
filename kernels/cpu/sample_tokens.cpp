// Tokens drawn from logits.
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/exponential.h"
#include "kernels/cpu/parallel.h"
#include "src/base/philox.h"

#include <algorithm>
#include <bit>

namespace espalier {

namespace {

struct WeightScratch {};

double sum_from(const float* weights, std::size_t count, float least) {
    double sum = 0;
    for (std::size_t i = 0; i < count; ++i) sum += weights[i] >= least ? static_cast<double>(weights[i]) : 0.0;
    return sum;
}

/// The largest weight such that all that are not smaller have at least `share` of the sum: by halving the range of its
/// bits, whose order is that of positive numbers.
float least_of_nucleus(const float* weights, std::size_t count, double share) {
    const double wanted = share * sum_from(weights, count, 0);
    std::uint32_t enough = 0, too_few = std::bit_cast<std::uint32_t>(1.0F) + 1;  // the largest weight is 1
    while (too_few - enough > 1) {
        const std::uint32_t middle = enough + (too_few - enough) / 2;
        (sum_from(weights, count, std::bit_cast<float>(middle)) >= wanted ? enough : too_few) = middle;
    }
    return std::bit_cast<float>(enough);
}

double fraction_of_draw(const SamplingRule& rule, std::size_t sequence, std::size_t position) {
    const auto words = philox4x32({static_cast<std::uint32_t>(position), static_cast<std::uint32_t>(sequence),
                                   static_cast<std::uint32_t>(std::uint64_t{sequence} >> 32), draws_of_tokens},
                                  {static_cast<std::uint32_t>(rule.seed), static_cast<std::uint32_t>(rule.seed >> 32)});
    return (static_cast<double>(words[0]) * 0x1p32 + static_cast<double>(words[1] & ~0x7FFU)) * 0x1p-64;
}

}  // namespace

void CpuDevice::sample_tokens(TensorView logits, const SamplingRule& rule, std::size_t first_sequence,
                              std::size_t position, TensorView tokens) {
    require(tokens.size() == logits.rows && tokens.dtype == DType::u64, "shapes of sample_tokens");
    const std::size_t vocabulary = logits.columns;
    auto* const drawn = reinterpret_cast<std::uint64_t*>(tokens.data);
    cpu::parallel_for(
        logits.rows,
        [&](std::size_t row) {
            const float* const z = logits.floats() + row * vocabulary;
            const float* const largest = std::max_element(z, z + vocabulary);
            drawn[row] = static_cast<std::uint64_t>(largest - z);
            if (rule.temperature == 0) return;
            float* const weights = cpu::thread_scratch<WeightScratch>(vocabulary);
            const auto inverse = static_cast<float>(1 / rule.temperature);
#pragma omp simd
            for (std::size_t i = 0; i < vocabulary; ++i) weights[i] = cpu::exponential((z[i] - *largest) * inverse);
            const float least = rule.top_p < 1 ? least_of_nucleus(weights, vocabulary, rule.top_p) : 0.0F;
            const double wanted =
                fraction_of_draw(rule, first_sequence + row, position) * sum_from(weights, vocabulary, least);
            double sum = 0;
            for (std::size_t i = 0; i < vocabulary; ++i) {
                if (weights[i] < least || weights[i] == 0.0F) continue;
                sum += static_cast<double>(weights[i]);
                drawn[row] = i;
                if (sum > wanted) return;
            }
        },
        static_cast<double>(logits.size()) * 8);
}

}  // namespace espalier
