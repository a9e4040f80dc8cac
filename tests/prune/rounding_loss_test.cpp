// How much of an optimisation is left after rounding to the output type.
#include "src/prune/rounding_loss.h"

#include <gtest/gtest.h>

#include <vector>

namespace espalier {
namespace {

std::vector<std::byte> stored(DType dtype, const std::vector<float>& values) {
    std::vector<std::byte> bytes(values.size() * bytes_of(dtype));
    round_from_float(dtype, values.data(), values.size(), bytes.data());
    return bytes;
}

TEST(UnchangedWeightShare, CountsSurvivingWeightsOnly) {
    const auto dense = stored(DType::bf16, {1, 2, 3, 4}), written = stored(DType::bf16, {1, 0, 5, 4});
    EXPECT_DOUBLE_EQ(
        unchanged_weight_share(DType::bf16, dense, DType::bf16, written, std::vector<std::uint8_t>{1, 0, 1, 1}),
        2.0 / 3.0);
    EXPECT_EQ(unchanged_weight_share(DType::bf16, dense, DType::bf16, written, std::vector<std::uint8_t>(4, 0)), 0);
}

TEST(UnchangedWeightShare, ComparesWithTheDenseWeightsAsTheyWouldBeWritten) {
    // A step of 1e-4 on weights near 1 is below bfloat16's spacing of 2^-7, one of 0.01 is not.
    const auto dense = stored(DType::f32, {1.0F, 1.0F, 1.001F});
    const auto written = stored(DType::bf16, {1.0001F, 1.01F, 1.0F});
    EXPECT_DOUBLE_EQ(unchanged_weight_share(DType::f32, dense, DType::bf16, written, std::vector<std::uint8_t>(3, 1)),
                     2.0 / 3.0);
}

TEST(UnchangedWeightShare, LongerThanOnePiece) {
    constexpr std::size_t count = 200001;
    std::vector<float> values(count, 1.0F);
    const auto dense = stored(DType::f16, values);
    for (std::size_t i = 0; i < count; i += 2) values[i] = 2.0F;
    EXPECT_DOUBLE_EQ(unchanged_weight_share(DType::f16, dense, DType::f32, stored(DType::f32, values),
                                            std::vector<std::uint8_t>(count, 1)),
                     100000.0 / 200001.0);
}

}  // namespace
}  // namespace espalier
