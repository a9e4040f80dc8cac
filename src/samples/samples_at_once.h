#pragma once
/// How many samples are trained on in one pass through a block.

#include <algorithm>
#include <cstddef>

namespace espalier {

/// Short samples go through a block together, since products of few rows are slow; from 256 rows on more make them
/// hardly faster, and fewer passes are fewer ranks that can share a step.
constexpr std::size_t samples_at_once(std::size_t sequence_length) {
    constexpr std::size_t rows = 256;
    return std::max<std::size_t>(1, rows / sequence_length);
}

}  // namespace espalier
