#pragma once
/// Cosine and sine of the rotary position embedding for positions 0 … T-1.

#include "src/model/rope_config.h"

#include <cstddef>
#include <vector>

namespace espalier {

/// Inverse frequencies [width / 2] for sequences of `tokens`, scaled as `rope` says. Computed in float64 and rounded
/// once.
std::vector<float> rope_inverse_frequencies(const RopeConfig& rope, std::size_t tokens);

/// Row-major [tokens, width / 2] tables; attention factors of yarn and longrope are multiplied in.
struct RopeTable {
    std::vector<float> cosine;
    std::vector<float> sine;
};
RopeTable make_rope_table(const RopeConfig& rope, std::size_t tokens);

}  // namespace espalier
