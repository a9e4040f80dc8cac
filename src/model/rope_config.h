#pragma once
/// What config.json says about the rotary position embedding.

#include "src/model/config_fields.h"

#include <cstddef>
#include <optional>
#include <vector>

namespace espalier {

enum class RopeScaling { none, linear, llama3, yarn, longrope };

/// Rotary position embedding of the first `width` channels of a head: frequencies theta^(-2i/width), then scaled.
struct RopeConfig {
    std::size_t width = 0;
    double theta = 10000;
    RopeScaling scaling = RopeScaling::none;
    double factor = 1;
    double low_frequency_factor = 1;                  ///< llama3
    double high_frequency_factor = 4;                 ///< llama3
    double original_max_positions = 8192;             ///< llama3, yarn, longrope
    double beta_fast = 32;                            ///< yarn
    double beta_slow = 1;                             ///< yarn
    std::optional<double> attention_factor;           ///< yarn; 0.1 ln(factor) + 1 when absent. longrope
    std::vector<double> short_factors, long_factors;  ///< longrope: of each frequency, up to original_max_positions

    bool operator==(const RopeConfig&) const = default;
};

/// The embedding that `fields` of config.json describe, in the spellings of transformers 4 and 5, over heads of
/// `head_size` channels. `partial`: partial_rotary_factor is read; otherwise the whole head is rotated.
RopeConfig read_rope(const ConfigFields& fields, std::size_t head_size, bool partial);

}  // namespace espalier
