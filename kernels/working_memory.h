#pragma once
/// What a GPU's operations hold beside their arguments while they run; plans count with it too.

#include "src/base/pruning_pattern.h"

#include <algorithm>
#include <cstddef>

namespace espalier {

/// Rows of a weight gradient that are handed out at a time: as many as make two full waves of 128 x 256 tiles on the
/// GPU. That is about 32 MiB of float32, most of which stay in the L2 cache (50 MiB on an H100) until their consumer
/// has read them.
inline std::size_t gradient_panel_rows(std::size_t columns, std::size_t multiprocessors) {
    constexpr std::size_t tile_rows = 128, tile_columns = 256, waves = 2;
    const std::size_t tiles_across = (columns + tile_columns - 1) / tile_columns;
    return tile_rows * std::max<std::size_t>(1, waves * multiprocessors / std::max<std::size_t>(1, tiles_across));
}

/// Square sums of columns are added up over runs of so many rows first.
constexpr std::size_t rows_of_square_sum = 32;

/// A sum of a whole tensor is added up in so many parts first, at most.
constexpr std::size_t most_parts_of_a_sum = 1024;

/// Columns of which SparseGPT's sweep keeps the errors of all rows, to spread them over the columns behind.
inline std::size_t sparsegpt_sweep_columns(const PruningPattern& pattern) {
    constexpr std::size_t columns = 128;
    if (!pattern.structured()) return columns;
    return std::max<std::size_t>(1, columns / pattern.group) * pattern.group;
}

}  // namespace espalier
