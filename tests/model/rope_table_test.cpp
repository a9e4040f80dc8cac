// Rotary tables against the formulas of their papers, written out directly.
#include "src/model/rope_table.h"

#include "tests/support/expect.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numbers>

namespace espalier {
namespace {

constexpr double two_pi = 2 * std::numbers::pi;

double plain(double theta, std::size_t head_size, std::size_t i) {
    return 1 / std::pow(theta, 2.0 * static_cast<double>(i) / static_cast<double>(head_size));
}

/// Every frequency within 2 roundings of float32 of `expected(i)`.
template <typename Expected>
void expect_frequencies(RopeConfig rope, std::size_t width, const Expected& expected, std::size_t tokens = 100) {
    rope.width = width;
    const std::vector<float> found = rope_inverse_frequencies(rope, tokens);
    ASSERT_EQ(found.size(), width / 2);
    for (std::size_t i = 0; i < found.size(); ++i) {
        const double value = expected(i);
        EXPECT_NEAR(static_cast<double>(found[i]), value, 2 * support::unit_roundoff * value) << "frequency " << i;
    }
}

TEST(RopeFrequencies, Plain) {
    for (const double theta : {10000.0, 500000.0}) {
        for (const std::size_t head_size : {2U, 6U, 64U, 128U}) {
            RopeConfig rope;
            rope.theta = theta;
            expect_frequencies(rope, head_size, [&](std::size_t i) { return plain(theta, head_size, i); });
        }
    }
}

TEST(RopeFrequencies, LinearDividesPositions) {
    RopeConfig rope;
    rope.scaling = RopeScaling::linear;
    rope.factor = 2.5;
    expect_frequencies(rope, 64, [&](std::size_t i) { return plain(10000, 64, i) / 2.5; });
}

TEST(RopeFrequencies, Llama3BlendsByWavelength) {
    RopeConfig rope;
    rope.theta = 500000;
    rope.scaling = RopeScaling::llama3;
    rope.factor = 8;
    rope.original_max_positions = 8192;
    int kept = 0, divided = 0, blended = 0;
    expect_frequencies(rope, 128, [&](std::size_t i) {
        const double frequency = plain(500000, 128, i), wavelength = two_pi / frequency;
        if (wavelength < 8192 / 4.0) return ++kept, frequency;
        if (wavelength > 8192 / 1.0) return ++divided, frequency / 8;
        const double smooth = (8192 / wavelength - 1) / (4.0 - 1.0);
        return ++blended, (1 - smooth) * frequency / 8 + smooth * frequency;
    });
    EXPECT_GT(kept, 0);
    EXPECT_GT(divided, 0);
    EXPECT_GT(blended, 0);
}

TEST(RopeFrequencies, YarnRampsBetweenFastAndSlowTurns) {
    RopeConfig rope;
    rope.theta = 1000000;
    rope.scaling = RopeScaling::yarn;
    rope.factor = 4;
    rope.original_max_positions = 32768;
    // Dimension in which a head of size 128 turns `rotations` times over the original positions.
    const auto dimension = [](double rotations) {
        return 128 * std::log(32768 / (rotations * two_pi)) / (2 * std::log(1000000.0));
    };
    const double low = std::floor(dimension(32)), high = std::ceil(dimension(1));
    ASSERT_LT(low, high);
    expect_frequencies(rope, 128, [&](std::size_t i) {
        const double ramp = std::min(1.0, std::max(0.0, (static_cast<double>(i) - low) / (high - low)));
        const double frequency = plain(1000000, 128, i);
        return frequency / 4 * ramp + frequency * (1 - ramp);
    });
}

TEST(RopeFrequencies, YarnRampEndsInsideTheHead) {
    // The ramp's ends are cut to 0 … head_size - 1, as transformers does: below for few original positions, above for
    // a small theta. Unrounded they lie at -0.99 and 2.02, and at 1.5 and 7.5.
    struct Ends {
        double theta, positions, low, high;
    };
    for (const Ends& ends : {Ends{100, 64, 0, 3}, {10, 477, 1, 7}}) {
        RopeConfig rope;
        rope.theta = ends.theta;
        rope.scaling = RopeScaling::yarn;
        rope.factor = 4;
        rope.original_max_positions = ends.positions;
        expect_frequencies(rope, 8, [&](std::size_t i) {
            const double ramp =
                std::min(1.0, std::max(0.0, (static_cast<double>(i) - ends.low) / (ends.high - ends.low)));
            return plain(ends.theta, 8, i) / 4 * ramp + plain(ends.theta, 8, i) * (1 - ramp);
        });
    }
}

TEST(RopeFrequencies, LongRopeDividesEachByItsFactorOfShortOrLongSequences) {
    RopeConfig rope;
    rope.scaling = RopeScaling::longrope;
    rope.original_max_positions = 4096;
    rope.short_factors = {1, 1.25, 2, 3};
    rope.long_factors = {1, 4, 16, 64};
    expect_frequencies(
        rope, 8, [&](std::size_t i) { return plain(10000, 8, i) / rope.short_factors[i]; }, 4096);
    expect_frequencies(
        rope, 8, [&](std::size_t i) { return plain(10000, 8, i) / rope.long_factors[i]; }, 4097);
}

TEST(RopeTable, CosineAndSineOfPositionTimesFrequency) {
    RopeConfig rope;
    rope.theta = 10000;
    const std::size_t head_size = 12, tokens = 300;
    rope.width = head_size;
    const RopeTable table = make_rope_table(rope, tokens);
    const std::vector<float> frequencies = rope_inverse_frequencies(rope, tokens);
    ASSERT_EQ(table.cosine.size(), tokens * 6);
    ASSERT_EQ(table.sine.size(), tokens * 6);
    for (std::size_t t = 0; t < tokens; ++t) {
        for (std::size_t i = 0; i < 6; ++i) {
            // transformers multiplies in float32: the angle is rounded, by up to t u.
            const double angle = static_cast<double>(static_cast<float>(t) * frequencies[i]);
            EXPECT_NEAR(table.cosine[t * 6 + i], std::cos(angle), support::unit_roundoff);
            EXPECT_NEAR(table.sine[t * 6 + i], std::sin(angle), support::unit_roundoff);
        }
    }
    EXPECT_EQ(table.cosine[0], 1.0F);
    EXPECT_EQ(table.sine[0], 0.0F);
}

TEST(RopeTable, YarnsAttentionFactorIsMultipliedIn) {
    RopeConfig rope;
    rope.width = 8;
    rope.scaling = RopeScaling::yarn;
    rope.factor = 4;
    EXPECT_NEAR(make_rope_table(rope, 1).cosine[0], 0.1 * std::log(4.0) + 1, 2 * support::unit_roundoff);
    rope.attention_factor = 1.25;
    EXPECT_EQ(make_rope_table(rope, 1).cosine[0], 1.25F);
    rope.scaling = RopeScaling::linear;
    EXPECT_EQ(make_rope_table(rope, 1).cosine[0], 1.0F) << "linear does not scale";
    rope.scaling = RopeScaling::longrope;
    rope.short_factors = rope.long_factors = {1, 1, 1, 1};
    EXPECT_EQ(make_rope_table(rope, 1).cosine[0], 1.25F);
}

}  // namespace
}  // namespace espalier
