#include "src/weights/mask_bits.h"

#include <cstring>

namespace espalier {

std::vector<std::byte> pack_mask(std::span<const std::uint8_t> mask, std::size_t columns) {
    const std::size_t rows = columns == 0 ? 0 : mask.size() / columns, row_bytes = (columns + 7) / 8;
    std::vector<std::byte> packed(rows * row_bytes);
    for (std::size_t row = 0; row < rows; ++row) {
        const std::uint8_t* const from = mask.data() + row * columns;
        std::byte* const to = packed.data() + row * row_bytes;
        std::size_t j = 0;
        for (; j + 8 <= columns; j += 8) {
            std::uint64_t eight;
            std::memcpy(&eight, from + j, 8);
            // Lowest bit of each byte, gathered in the highest byte by one multiplication.
            to[j / 8] = static_cast<std::byte>(((eight & 0x0101010101010101U) * 0x0102040810204080U) >> 56);
        }
        for (; j < columns; ++j) {
            if (from[j] != 0) to[j / 8] |= std::byte{1} << (j % 8);
        }
    }
    return packed;
}

std::vector<std::uint8_t> unpack_mask(std::span<const std::byte> packed, std::size_t rows, std::size_t columns) {
    const std::size_t row_bytes = (columns + 7) / 8;
    std::vector<std::uint8_t> mask(rows * columns);
    for (std::size_t row = 0; row < rows; ++row) {
        for (std::size_t j = 0; j < columns; ++j) {
            mask[row * columns + j] =
                static_cast<std::uint8_t>((packed[row * row_bytes + j / 8] >> (j % 8)) & std::byte{1});
        }
    }
    return mask;
}

}  // namespace espalier
