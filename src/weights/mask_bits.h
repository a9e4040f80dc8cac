#pragma once
/// Masks as they are stored: eight weights a byte.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace espalier {

/// Rows of a mask (0 or 1) packed eight to a byte, lowest bit first, each row padded to whole bytes.
std::vector<std::byte> pack_mask(std::span<const std::uint8_t> mask, std::size_t columns);
std::vector<std::uint8_t> unpack_mask(std::span<const std::byte> packed, std::size_t rows, std::size_t columns);

}  // namespace espalier
