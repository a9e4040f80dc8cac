#pragma once
/// How many rows of a weight gradient a GPU hands out at a time; plans count with it too.

#include <algorithm>
#include <cstddef>

namespace espalier {

/// As many rows as make two full waves of 128 x 256 tiles on the GPU. That is about 32 MiB of float32, most of which
/// stay in the L2 cache (50 MiB on an H100) until their consumer has read them.
inline std::size_t gradient_panel_rows(std::size_t columns, std::size_t multiprocessors) {
    constexpr std::size_t tile_rows = 128, tile_columns = 256, waves = 2;
    const std::size_t tiles_across = (columns + tile_columns - 1) / tile_columns;
    return tile_rows * std::max<std::size_t>(1, waves * multiprocessors / std::max<std::size_t>(1, tiles_across));
}

}  // namespace espalier
