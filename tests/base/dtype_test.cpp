// Conversions between float32, float16 and bfloat16: exact one way, nearest even the other.
#include "src/base/dtype.h"

#include "tests/support/expect.h"
#include "tests/support/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace espalier {
namespace {

using support::Random;

/// A 16-bit format with `fraction` stored bits and exponents from `lowest` (subnormals) to `highest`.
struct Format {
    DType dtype;
    int fraction, lowest, highest;
    std::uint16_t infinity;
    std::uint16_t (*round)(float);
    float (*widen)(std::uint16_t);
};
const Format half = {DType::f16, 10, -14, 15, 0x7c00, f16_from_float, float_from_f16};
const Format brain = {DType::bf16, 7, -126, 127, 0x7f80, bf16_from_float, float_from_bf16};

class FloatFormat : public testing::TestWithParam<const Format*> {};
INSTANTIATE_TEST_SUITE_P(Formats, FloatFormat, testing::Values(&half, &brain),
                         [](const auto& info) { return std::string(name_of(info.param->dtype)); });

/// The value of a pattern, from the definition of the format.
double value_by_definition(const Format& format, std::uint16_t pattern) {
    const int exponent = (pattern & 0x7fff) >> format.fraction, fraction = pattern & ((1 << format.fraction) - 1);
    const double sign = (pattern & 0x8000) != 0 ? -1 : 1;
    if (exponent == 0) return sign * std::ldexp(fraction, format.lowest - format.fraction);
    return sign * std::ldexp(fraction + (1 << format.fraction), exponent - 1 + format.lowest - format.fraction);
}

/// Nearest even by double arithmetic: the spacing of the format at |value| is an exact power of two, and nearbyint
/// rounds ties to even.
double nearest_even(const Format& format, float value) {
    const double magnitude = std::fabs(static_cast<double>(value));
    const int exponent = std::max(format.lowest, magnitude == 0 ? format.lowest : std::ilogb(magnitude));
    const double spacing = std::ldexp(1.0, exponent - format.fraction);
    const double rounded = std::nearbyint(magnitude / spacing) * spacing;
    const double largest = std::ldexp(2.0 - std::ldexp(1.0, -format.fraction), format.highest);
    return std::copysign(rounded > largest ? std::numeric_limits<double>::infinity() : rounded, value);
}

TEST_P(FloatFormat, EveryPatternSurvivesARoundTrip) {
    const Format& format = *GetParam();
    for (std::uint32_t pattern = 0; pattern <= 0xffff; ++pattern) {
        const auto bits = static_cast<std::uint16_t>(pattern);
        const float value = format.widen(bits);
        if ((bits & 0x7fff) > format.infinity) {
            EXPECT_TRUE(std::isnan(value)) << pattern;
            // Rounding quiets a NaN and keeps its sign.
            const auto quiet_bit = static_cast<std::uint16_t>(1 << (format.fraction - 1));
            ASSERT_EQ(format.round(value), bits | quiet_bit) << pattern;
            continue;
        }
        ASSERT_EQ(format.round(value), bits) << pattern;
        if ((bits & 0x7fff) == format.infinity) {
            ASSERT_TRUE(std::isinf(value) && std::signbit(value) == (bits >> 15 != 0)) << pattern;
            continue;
        }
        ASSERT_EQ(static_cast<double>(value), value_by_definition(format, bits)) << pattern;
    }
}

TEST_P(FloatFormat, RoundsToNearestEven) {
    const Format& format = *GetParam();
    const auto check = [&](float value) {
        const float rounded = format.widen(format.round(value));
        ASSERT_EQ(std::bit_cast<std::uint32_t>(rounded),
                  std::bit_cast<std::uint32_t>(static_cast<float>(nearest_even(format, value))))
            << value;
    };
    Random random(1);
    for (int i = 0; i < 1000000; ++i) {
        const auto value = std::bit_cast<float>(static_cast<std::uint32_t>(random.bits()));
        if (!std::isnan(value)) check(value);
    }
    // Every value of the format, the middle to its successor, and the float32 neighbours of both.
    for (std::uint16_t bits = 0; bits < format.infinity; ++bits) {
        const float value = format.widen(bits);
        const auto spacing = static_cast<float>(
            std::ldexp(1.0, std::max(format.lowest, value == 0 ? format.lowest : std::ilogb(value)) - format.fraction));
        const float infinity = std::numeric_limits<float>::infinity();
        for (const float point : {value, value + spacing / 2}) {
            for (const float near : {point, std::nextafter(point, infinity), std::nextafter(point, -infinity)}) {
                check(near);
                check(-near);
            }
        }
    }
}

TEST_P(FloatFormat, OverflowGivesInfinity) {
    const Format& format = *GetParam();
    EXPECT_EQ(format.round(std::numeric_limits<float>::infinity()), format.infinity);
    EXPECT_EQ(format.round(std::numeric_limits<float>::max()), format.infinity);
    EXPECT_EQ(format.round(-std::numeric_limits<float>::max()), format.infinity | 0x8000);
}

TEST_P(FloatFormat, NanStaysNan) {
    const Format& format = *GetParam();
    // A payload only in the bits that are cut off must not turn into infinity.
    for (const std::uint32_t bits : {0x7f800001u, 0xff800001u, 0x7fc00000u, 0xffffffffu, 0x7fbfffffu}) {
        const std::uint16_t rounded = format.round(std::bit_cast<float>(bits));
        EXPECT_GT(rounded & 0x7fff, format.infinity) << bits;
        EXPECT_EQ(rounded >> 15, bits >> 31) << bits;
    }
}

TEST_P(FloatFormat, ArraysConvertLikeSingleValuesAndNeedNoAlignment) {
    const Format& format = *GetParam();
    const std::vector<float> values = Random(2).normals(1001, 100);
    std::vector<std::byte> stored(2 * values.size() + 1);
    round_from_float(format.dtype, values.data(), values.size(), stored.data() + 1);
    std::vector<float> widened(values.size());
    widen_to_float(format.dtype, stored.data() + 1, values.size(), widened.data());
    for (std::size_t i = 0; i < values.size(); ++i) {
        ASSERT_EQ(widened[i], format.widen(format.round(values[i]))) << i;
    }
}

TEST(DType, Float32IsCopiedBitForBit) {
    const std::vector<std::uint32_t> bits = {0x7f800001u, 0x80000000u, 0x00000001u, 0x3f800000u};
    std::vector<std::uint32_t> stored(bits.size()), widened(bits.size());
    round_from_float(DType::f32, reinterpret_cast<const float*>(bits.data()), bits.size(),
                     reinterpret_cast<std::byte*>(stored.data()));
    widen_to_float(DType::f32, reinterpret_cast<const std::byte*>(stored.data()), bits.size(),
                   reinterpret_cast<float*>(widened.data()));
    EXPECT_EQ(widened, bits);
}

TEST(DType, NamesAndSizes) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
        EXPECT_EQ(float_dtype_from_name(name_of(dtype)), dtype);
    }
    EXPECT_EQ(bytes_of(DType::f32), 4U);
    EXPECT_EQ(bytes_of(DType::f16), 2U);
    EXPECT_EQ(bytes_of(DType::bf16), 2U);
    EXPECT_EQ(bytes_of(DType::u8), 1U);
    support::expect_input_error({"uint8", "float32, float16, bfloat16"},
                                [] { static_cast<void>(float_dtype_from_name("uint8")); });
}

TEST(DType, MasksDoNotConvert) {
    float value = 0;
    std::byte byte{};
    support::expect_error(ExitStatus::bug, {"mask"}, [&] { widen_to_float(DType::u8, &byte, 1, &value); });
    support::expect_error(ExitStatus::bug, {"mask"}, [&] { round_from_float(DType::u8, &value, 1, &byte); });
}

}  // namespace
}  // namespace espalier
