// Masks packed eight weights a byte.
#include "src/weights/mask_bits.h"

#include "tests/support/random.h"

#include <gtest/gtest.h>

#include <utility>

namespace espalier {
namespace {

using support::Random;

TEST(PackMask, LowestBitFirstAndRowsPadded) {
    const std::vector<std::uint8_t> mask = {1, 0, 0, 1, 0, 0, 0, 0, 0, 1,   //
                                            0, 1, 1, 1, 1, 1, 1, 1, 1, 0};  // two rows of ten
    const std::vector<std::byte> packed = pack_mask(mask, 10);
    EXPECT_EQ(packed,
              (std::vector<std::byte>{std::byte{0b00001001}, std::byte{0b10}, std::byte{0b11111110}, std::byte{0b01}}));
    EXPECT_EQ(unpack_mask(packed, 2, 10), mask);
}

TEST(PackMask, RoundTrip) {
    Random random(1);
    for (const auto& [rows, columns] :
         {std::pair<std::size_t, std::size_t>{1, 1}, {3, 7}, {5, 8}, {2, 9}, {17, 64}, {4, 4097}, {0, 5}}) {
        std::vector<std::uint8_t> mask(rows * columns);
        for (auto& keep : mask) keep = static_cast<std::uint8_t>(random.below(2));
        const std::vector<std::byte> packed = pack_mask(mask, columns);
        EXPECT_EQ(packed.size(), rows * ((columns + 7) / 8));
        EXPECT_EQ(unpack_mask(packed, rows, columns), mask) << rows << "x" << columns;
    }
    EXPECT_TRUE(pack_mask({}, 0).empty());
}

}  // namespace
}  // namespace espalier
