#include "src/model/rope_table.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace espalier {

namespace {

/// Llama 3.1: long wavelengths are divided by `factor`, short ones kept, those between blended.
double llama3_frequency(const RopeConfig& rope, double frequency) {
    const double wavelength = 2 * std::numbers::pi / frequency;
    const double original = rope.original_max_positions;
    if (wavelength < original / rope.high_frequency_factor) return frequency;
    if (wavelength > original / rope.low_frequency_factor) return frequency / rope.factor;
    const double smooth =
        (original / wavelength - rope.low_frequency_factor) / (rope.high_frequency_factor - rope.low_frequency_factor);
    return (1 - smooth) * frequency / rope.factor + smooth * frequency;
}

/// YaRN (Peng et al. 2023): dimensions that turn often are kept, those that turn rarely are divided by `factor`.
double yarn_frequency(const RopeConfig& rope, std::size_t i, double frequency) {
    const auto dimension_turning = [&](double rotations) {
        return static_cast<double>(rope.width) *
               std::log(rope.original_max_positions / (rotations * 2 * std::numbers::pi)) / (2 * std::log(rope.theta));
    };
    const double low = std::max(0.0, std::floor(dimension_turning(rope.beta_fast)));
    double high = std::min(static_cast<double>(rope.width) - 1, std::ceil(dimension_turning(rope.beta_slow)));
    if (low == high) high += 0.001;
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    return frequency / rope.factor * ramp + frequency * (1 - ramp);
}

}  // namespace

std::vector<float> rope_inverse_frequencies(const RopeConfig& rope, std::size_t tokens) {
    const std::vector<double>& stretched =
        static_cast<double>(tokens) > rope.original_max_positions ? rope.long_factors : rope.short_factors;
    std::vector<float> frequencies(rope.width / 2);
    for (std::size_t i = 0; i < frequencies.size(); ++i) {
        const double base = std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(rope.width));
        double frequency = base;
        switch (rope.scaling) {
            case RopeScaling::none:
                break;
            case RopeScaling::linear:
                frequency = base / rope.factor;
                break;
            case RopeScaling::llama3:
                frequency = llama3_frequency(rope, base);
                break;
            case RopeScaling::yarn:
                frequency = yarn_frequency(rope, i, base);
                break;
            case RopeScaling::longrope:
                frequency = base / stretched[i];
                break;
        }
        frequencies[i] = static_cast<float>(frequency);
    }
    return frequencies;
}

RopeTable make_rope_table(const RopeConfig& rope, std::size_t tokens) {
    const std::vector<float> frequencies = rope_inverse_frequencies(rope, tokens);
    double scale = 1;
    if (rope.scaling == RopeScaling::longrope) scale = rope.attention_factor.value_or(1);
    if (rope.scaling == RopeScaling::yarn) scale = rope.attention_factor.value_or(0.1 * std::log(rope.factor) + 1);
    RopeTable table;
    for (std::size_t t = 0; t < tokens; ++t) {
        for (const float frequency : frequencies) {
            const float angle = static_cast<float>(t) * frequency;  // float32, as transformers computes it
            table.cosine.push_back(static_cast<float>(scale * std::cos(static_cast<double>(angle))));
            table.sine.push_back(static_cast<float>(scale * std::sin(static_cast<double>(angle))));
        }
    }
    return table;
}

}  // namespace espalier
