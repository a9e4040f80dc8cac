#include "io/fletcher32.h"

#include <algorithm>
#include <cstring>

namespace espalier {

namespace {

std::uint64_t folded(std::uint64_t sum) {
    while (sum > 0xFFFF) sum = (sum & 0xFFFF) + (sum >> 16);
    return sum;
}

}  // namespace

std::uint32_t fletcher32(std::span<const std::byte> data) {
    constexpr std::size_t block_words = 256;  // weighted sums of this many words fit 32 bits
    std::uint64_t first = 0, second = 0;
    const std::size_t words = data.size() / 2;
    for (std::size_t begin = 0; begin < words; begin += block_words) {
        const std::size_t count = std::min(block_words, words - begin);
        const std::byte* const block = data.data() + 2 * begin;
        std::uint32_t sum = 0, weighted = 0;
        for (std::size_t i = 0; i < count; ++i) {
            std::uint16_t word;
            std::memcpy(&word, block + 2 * i, 2);
            const auto value = static_cast<std::uint32_t>(static_cast<std::uint16_t>(word << 8 | word >> 8));
            sum += value;
            weighted += value * static_cast<std::uint32_t>(count - i);
        }
        second = folded(second + count * first + weighted);
        first = folded(first + sum);
    }
    if (data.size() % 2 == 1) {
        first = folded(first + (std::to_integer<std::uint64_t>(data.back()) << 8));
        second = folded(second + first);
    }
    return static_cast<std::uint32_t>(second << 16 | first);
}

}  // namespace espalier
