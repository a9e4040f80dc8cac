// Which elements dropout drops, against the definition of its mask.
#include "src/base/philox.h"
#include "tests/support/random.h"
#include "tests/support/test_device.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using namespace support;

/// Rows on both sides of where a 32-bit number of rows ends.
constexpr std::uint64_t first_row = (std::uint64_t{1} << 32) - 2;

bool is_dropped(const DropoutMask& mask, std::size_t row, std::size_t column) {
    const std::uint64_t number = mask.first_row + row;
    const auto words = philox4x32({static_cast<std::uint32_t>(column / 4), static_cast<std::uint32_t>(number),
                                   static_cast<std::uint32_t>(number >> 32), mask.stream},
                                  {static_cast<std::uint32_t>(mask.seed), static_cast<std::uint32_t>(mask.seed >> 32)});
    return static_cast<double>(words[column % 4]) < mask.probability * 4294967296.0;
}

TEST(DropoutTest, DropsByCounter) {
    const auto device = make_test_device();
    Random random(3);
    for (const std::size_t columns : {1, 7, 64, 90}) {
        constexpr std::size_t rows = 5;
        const std::vector<float> x = random.normals(rows * columns), before = random.normals(rows * columns);
        const DropoutMask mask{0.25, (std::uint64_t{5} << 32) + 9, 77, first_row};
        const Tensor y = make_poisoned(*device, rows, columns), sum = upload(*device, rows, columns, before);
        device->dropout(mask, 1.25F, -0.5F, false, upload(*device, rows, columns, x), y);
        device->dropout(mask, 1.25F, -0.5F, true, upload(*device, rows, columns, x), sum);
        const std::vector<float> found = download(*device, y), added = download(*device, sum);
        for (std::size_t i = 0; i < x.size(); ++i) {
            const float expected = x[i] * (is_dropped(mask, i / columns, i % columns) ? -0.5F : 1.25F);
            ASSERT_EQ(found[i], expected) << "element " << i << " of rows of " << columns;
            ASSERT_NEAR(added[i], before[i] + expected, 1e-6) << i;
        }
    }
}

TEST(DropoutTest, DropsTheShareThatWasSaid) {
    const auto device = make_test_device();
    constexpr std::size_t rows = 100, columns = 1000;
    const Tensor ones = upload(*device, rows, columns, std::vector<float>(rows * columns, 1));
    const Tensor y = make_poisoned(*device, rows, columns);
    std::vector<float> first;
    for (const std::uint32_t stream : {0U, 1U}) {
        device->dropout({0.1, 1, stream, 0}, 0, 1, false, ones, y);
        const std::vector<float> found = download(*device, y);
        double dropped = 0, both = 0;
        for (std::size_t i = 0; i < found.size(); ++i) {
            dropped += static_cast<double>(found[i]);
            if (!first.empty()) both += static_cast<double>(found[i] * first[i]);
        }
        EXPECT_NEAR(dropped, 10000, 500);  // five standard deviations
        if (!first.empty()) {
            EXPECT_NEAR(both, 1000, 160) << "streams are independent";
        }
        first = found;
    }
    device->dropout({0, 1, 0, 0}, 1, 0, false, ones, y);
    EXPECT_EQ(download(*device, y), download(*device, ones));
}

}  // namespace
}  // namespace espalier
