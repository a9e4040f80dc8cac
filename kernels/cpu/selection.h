#pragma once
/// Which weights of a group or row go: shared by score_and_mask and SparseGPT's sweep.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

namespace espalier::cpu {

/// Orders weights by (score, column): score bits in the upper half (non-negative floats order like their bits), column
/// in the lower, so that the smaller key goes first and ties and zeros fall to the lower column.
inline std::uint64_t removal_key(float score, std::size_t column) {
    return (static_cast<std::uint64_t>(std::bit_cast<std::uint32_t>(score)) << 32) | static_cast<std::uint32_t>(column);
}

/// Writes keep[i] = 0 for the `remove` smallest keys and 1 for the others; keep has one entry per key. Reorders `keys`,
/// whose low halves must be the positions 0 … n-1.
void mark_smallest(std::span<std::uint64_t> keys, std::size_t remove, std::uint8_t* keep);

}  // namespace espalier::cpu
