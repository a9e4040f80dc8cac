#pragma once
/// Cosine and sine of the rotary position embedding for positions 0 … T-1.

#include "src/model/model_config.h"

#include <cstddef>
#include <vector>

namespace espalier {

/// Inverse frequencies [head_size / 2], scaled as `rope` says. Computed in float64 and rounded once.
std::vector<float> rope_inverse_frequencies(const RopeConfig& rope, std::size_t head_size);

/// Row-major [tokens, head_size / 2] tables; yarn's attention factor is multiplied in.
struct RopeTable {
    std::vector<float> cosine;
    std::vector<float> sine;
};
RopeTable make_rope_table(const RopeConfig& rope, std::size_t head_size, std::size_t tokens);

}  // namespace espalier
