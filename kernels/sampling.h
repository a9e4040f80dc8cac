#pragma once
/// How a token is drawn from logits.

#include <cstddef>
#include <cstdint>

namespace espalier {

/// Draws go by counter, so that a token depends on the logits, the seed and where it stands, and on nothing else.
struct SamplingRule {
    double temperature = 1;  ///< logits are divided by it; 0: the most likely token
    double top_p = 1;        ///< only the most likely tokens that have this probability together can be drawn
    std::uint64_t seed = 0;
};

/// The draw for token `position` of sequence `sequence`: Philox4x32-10 of counter {position, sequence (low and high
/// half), 0x5A3B1E} under the key `seed`; words 0 and 1 are the bits of a fraction from 0 to less than 1.
inline constexpr std::uint32_t draws_of_tokens = 0x5A3B1E;

}  // namespace espalier
