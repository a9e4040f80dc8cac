// Tokens drawn from logits: which can be drawn, how often, and from what.
#include "kernels/device_numbers.h"
#include "tests/support/random.h"
#include "tests/support/test_device.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace espalier {
namespace {

using namespace support;

class SampleTokensTest : public testing::Test {
  protected:
    std::unique_ptr<Device> device_ = make_test_device();

    std::vector<std::uint64_t> draw(std::size_t rows, const std::vector<float>& logits, const SamplingRule& rule,
                                    std::size_t first = 0, std::size_t position = 0) {
        const DeviceCounters tokens(*device_, rows);
        device_->sample_tokens(upload(*device_, rows, logits.size() / rows, logits), rule, first, position,
                               tokens.all());
        return tokens.read();
    }
    /// How often each token comes, of `count` sequences with the same logits.
    std::vector<double> frequencies(const std::vector<float>& logits, const SamplingRule& rule, std::size_t count) {
        std::vector<float> rows;
        for (std::size_t i = 0; i < count; ++i) rows.insert(rows.end(), logits.begin(), logits.end());
        std::vector<double> found(logits.size());
        for (const std::uint64_t token : draw(count, rows, rule)) found[token] += 1 / static_cast<double>(count);
        return found;
    }
};

TEST_F(SampleTokensTest, TemperatureZeroTakesTheFirstOfTheLargest) {
    Random random(1);
    for (const std::size_t vocabulary : {1U, 5U, 300U, 1000U}) {
        std::vector<float> logits = random.normals(3 * vocabulary);
        logits[vocabulary - 1] = 100;                                              // of the first row the last
        if (vocabulary > 2) logits[vocabulary + 2] = logits[vocabulary + 1] = 50;  // of the second a tie
        const auto found = draw(3, logits, {.temperature = 0});
        for (std::size_t row = 0; row < 3; ++row) {
            const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(row * vocabulary);
            EXPECT_EQ(found[row], std::max_element(begin, begin + static_cast<std::ptrdiff_t>(vocabulary)) - begin);
        }
    }
}

TEST_F(SampleTokensTest, FrequenciesAreTheProbabilities) {
    const std::vector<float> logits = {0, 1, -1, 2, -30, 0.5F};
    for (const double temperature : {1.0, 0.5, 3.0}) {
        std::vector<double> expected;
        double sum = 0;
        for (const float logit : logits)
            sum += expected.emplace_back(std::exp(static_cast<double>(logit) / temperature));
        constexpr std::size_t count = 4000;
        const auto found = frequencies(logits, {.temperature = temperature, .seed = 3}, count);
        for (std::size_t i = 0; i < logits.size(); ++i) {
            const double p = expected[i] / sum;
            EXPECT_NEAR(found[i], p, 5 * std::sqrt(p * (1 - p) / count) + 1e-9) << "token " << i;
        }
    }
}

TEST_F(SampleTokensTest, TopPLeavesTheLikeliest) {
    // Probabilities 0.4, 0.3, 0.2, 0.06, 0.04 in some order.
    std::vector<float> logits;
    for (const double p : {0.06, 0.4, 0.2, 0.04, 0.3}) logits.push_back(static_cast<float>(std::log(p)) + 7);
    const auto half = frequencies(logits, {.top_p = 0.5, .seed = 5}, 300);
    EXPECT_EQ(half[0] + half[2] + half[3], 0);
    EXPECT_NEAR(half[1], 0.4 / 0.7, 0.15);
    const auto most = frequencies(logits, {.top_p = 0.85, .seed = 5}, 300);
    EXPECT_EQ(most[0] + most[3], 0);
    EXPECT_NEAR(most[2], 0.2 / 0.9, 0.12);
    const auto one = frequencies(logits, {.top_p = 1e-6, .seed = 5}, 20);
    EXPECT_NEAR(one[1], 1, 1e-9);
}

TEST_F(SampleTokensTest, DrawsGoByPlace) {
    const std::vector<float> logits(4 * 777, 0.25F);
    const SamplingRule rule{.seed = std::uint64_t{9} << 33};
    const auto found = draw(4, logits, rule, 10, 5);
    EXPECT_EQ(draw(4, logits, rule, 10, 5), found);
    EXPECT_EQ(draw(1, std::vector<float>(777, 0.25F), rule, 12, 5)[0], found[2]) << "by the number of the sequence";
    EXPECT_NE(draw(4, logits, rule, 10, 6), found);
    EXPECT_NE(draw(4, logits, {.seed = 1}, 10, 5), found);
    std::vector<float> certain(777, -50);
    certain[400] = 50;
    EXPECT_EQ(draw(1, certain, rule)[0], 400U);
}

}  // namespace
}  // namespace espalier
