// The rotation of queries and keys against float64, and back.
#include "tests/support/expect.h"
#include "tests/support/matrix.h"
#include "tests/support/test_device.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using namespace support;

struct RopeShape {
    std::size_t tokens, heads, head_size, rotated;
};
constexpr RopeShape rope_shapes[] = {{1, 1, 2, 2},    {2, 3, 6, 6},       {63, 2, 64, 64},  {64, 4, 96, 96},
                                     {65, 5, 10, 10}, {130, 1, 128, 128}, {700, 3, 16, 16}, {65, 3, 128, 96},
                                     {33, 2, 96, 40}, {7, 5, 10, 4}};

class RopeTest : public testing::TestWithParam<RopeShape> {};
INSTANTIATE_TEST_SUITE_P(Shapes, RopeTest, testing::ValuesIn(rope_shapes), [](const auto& info) {
    return "T" + std::to_string(info.param.tokens) + "_heads" + std::to_string(info.param.heads) + "_size" +
           std::to_string(info.param.head_size) + "_of_it" + std::to_string(info.param.rotated);
});

TEST_P(RopeTest, RotatesDimensionIWithIPlusHalf) {
    const auto [tokens, heads, head_size, rotated_part] = GetParam();
    const std::size_t half = rotated_part / 2, width = heads * head_size;
    const auto device = make_test_device();
    Random random(1);
    const Matrix x = Matrix::random(random, tokens, width);
    // The tables may be longer than the sample.
    const Matrix cosine = Matrix::random(random, tokens + 3, half), sine = Matrix::random(random, tokens + 3, half);
    const Tensor c = upload(*device, tokens + 3, half, cosine.values),
                 s = upload(*device, tokens + 3, half, sine.values);
    for (const bool inverse : {false, true}) {
        Bounded expected(tokens * width);  // where nothing is rotated, x to the bit
        for (std::size_t i = 0; i < tokens * width; ++i) expected.values[i] = x(0, i);
        for (std::size_t t = 0; t < tokens; ++t) {
            for (std::size_t head = 0; head < heads; ++head) {
                for (std::size_t i = 0; i < half; ++i) {
                    const std::size_t first = head * head_size + i, second = first + half;
                    const double a = x(t, first), b = x(t, second), turn = inverse ? -sine(t, i) : sine(t, i);
                    expected.values[t * width + first] = a * cosine(t, i) - b * turn;
                    expected.values[t * width + second] = b * cosine(t, i) + a * turn;
                    // Two products and one sum.
                    expected.bounds[t * width + first] =
                        2 * unit_roundoff * (std::fabs(a * cosine(t, i)) + std::fabs(b * turn));
                    expected.bounds[t * width + second] =
                        2 * unit_roundoff * (std::fabs(b * cosine(t, i)) + std::fabs(a * turn));
                }
            }
        }
        const Tensor rotated = upload(*device, tokens, width, x.values);
        device->apply_rope(rotated, head_size, c, s, inverse);
        expect_within(download(*device, rotated), expected.values, expected.bounds, inverse ? "inverse" : "forward");
    }
}

TEST(Rope, InverseUndoesTheRotation) {
    const auto device = make_test_device();
    const std::size_t tokens = 65, head_size = 12, heads = 3;
    Random random(2);
    std::vector<float> cosine(tokens * head_size / 2), sine(cosine.size());
    for (std::size_t i = 0; i < cosine.size(); ++i) {
        const double angle = random.uniform(-3, 3);
        cosine[i] = static_cast<float>(std::cos(angle));
        sine[i] = static_cast<float>(std::sin(angle));
    }
    const std::vector<float> x = random.normals(tokens * heads * head_size);
    const Tensor values = upload(*device, tokens, heads * head_size, x);
    const Tensor c = upload(*device, tokens, head_size / 2, cosine), s = upload(*device, tokens, head_size / 2, sine);
    device->apply_rope(values, head_size, c, s, false);
    device->apply_rope(values, head_size, c, s, true);
    const std::vector<float> back = download(*device, values);
    for (std::size_t i = 0; i < x.size(); ++i) {
        // cos^2 + sin^2 of rounded tables errs by 2 u, the two rotations by 4 u of a vector of at most 6.
        EXPECT_NEAR(back[i], x[i], 6 * 6 * unit_roundoff * 2);
    }
}

TEST(Rope, WrongShapesAreBugs) {
    const auto device = make_test_device();
    const Tensor x = make_poisoned(*device, 4, 6), table = make_poisoned(*device, 4, 1),
                 short_table = make_poisoned(*device, 3, 1);
    const Tensor wide_table = make_poisoned(*device, 4, 2);
    expect_error(ExitStatus::bug, {"head size"}, [&] { device->apply_rope(x, 4, table, table, false); });
    expect_error(ExitStatus::bug, {"tables"}, [&] { device->apply_rope(x, 3, wide_table, wide_table, false); });
    expect_error(ExitStatus::bug, {"tables"}, [&] { device->apply_rope(x, 2, short_table, short_table, false); });
}

}  // namespace
}  // namespace espalier
