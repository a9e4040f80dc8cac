// The CPU kernels' exponential against float64, over its whole range.
#include "kernels/cpu/exponential.h"

#include "tests/support/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

namespace espalier {
namespace {

/// Error in units in the last place of the exact result.
double error_in_ulp(float x) {
    const double exact = std::exp(static_cast<double>(x));
    const double ulp = std::ldexp(1.0, std::max(-126, std::ilogb(exact)) - 23);
    return std::fabs(static_cast<double>(cpu::exponential(x)) - exact) / ulp;
}

TEST(Exponential, IsWithinTwoUnitsInTheLastPlace) {
    double worst = 0;
    float place = 0;
    const auto look_at = [&](float x) {
        const double error = error_in_ulp(x);
        if (!(error > worst)) return;
        worst = error;
        place = x;
    };
    for (float x = -87.299F; x < 88.299F; x += 0.0001F) look_at(x);
    support::Random random(1);
    for (int i = 0; i < 500000; ++i)
        look_at(static_cast<float>(random.uniform(-1, 1) * std::pow(2, random.uniform(-30, 6))));
    EXPECT_LE(worst, 2) << "at " << place;
}

TEST(Exponential, Ends) {
    const float infinity = std::numeric_limits<float>::infinity();
    EXPECT_EQ(cpu::exponential(0), 1.0F);
    EXPECT_EQ(cpu::exponential(-0.0F), 1.0F);
    EXPECT_EQ(cpu::exponential(-88), 0.0F);
    EXPECT_EQ(cpu::exponential(-infinity), 0.0F);
    EXPECT_NEAR(cpu::exponential(infinity), 2.2e38, 0.1e38);
    EXPECT_EQ(cpu::exponential(1000), cpu::exponential(88.3F));
    EXPECT_TRUE(std::isnan(cpu::exponential(std::numeric_limits<float>::quiet_NaN())));
}

}  // namespace
}  // namespace espalier
