// Philox4x32-10 against the known answers that Random123 publishes, and what draws depend on.
#include "src/base/philox.h"

#include "tests/support/expect.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

namespace espalier {
namespace {

using Words = std::array<std::uint32_t, 4>;

TEST(Philox, KnownAnswers) {
    EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
    const std::uint32_t ones = 0xffffffff;
    EXPECT_EQ(philox4x32({ones, ones, ones, ones}, {ones, ones}),
              (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
    // The digits of pi.
    EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
              (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Draw, IsTheBeginningOfAPermutation) {
    for (const std::size_t population : {1U, 2U, 7U, 128U, 1000U}) {
        const auto all = draw_without_replacement(42, 3, 1, population, population);
        std::vector<std::size_t> sorted = all;
        std::sort(sorted.begin(), sorted.end());
        for (std::size_t i = 0; i < population; ++i) ASSERT_EQ(sorted[i], i) << population;
        // A smaller draw is the same shuffle, stopped earlier.
        const auto some = draw_without_replacement(42, 3, 1, population / 2, population);
        EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin())) << population;
        EXPECT_EQ(some.size(), population / 2);
    }
}

TEST(Draw, FollowsItsDefinition) {
    const std::uint64_t seed = 0x0123456789abcdef;
    std::vector<std::size_t> order = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
    for (std::uint32_t j = 0; j < 4; ++j) {
        const Words words = philox4x32({j, 5, 2, 0}, {0x89abcdef, 0x01234567});
        const auto word = static_cast<unsigned __int128>((static_cast<std::uint64_t>(words[0]) << 32) | words[1]);
        std::swap(order[j], order[j + static_cast<std::size_t>((word * (10 - j)) >> 64)]);
    }
    order.resize(4);
    EXPECT_EQ(draw_without_replacement(seed, 5, 2, 4, 10), order);
}

TEST(Draw, DependsOnSeedBlockAndRoundAndNothingElse) {
    const auto draw = [](std::uint64_t seed, std::uint32_t block, std::uint32_t round) {
        return draw_without_replacement(seed, block, round, 32, 128);
    };
    EXPECT_EQ(draw(1, 2, 3), draw(1, 2, 3));
    std::set<std::vector<std::size_t>> different;
    for (const std::uint64_t seed : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{1} << 32}) {
        for (std::uint32_t block = 0; block < 3; ++block) {
            for (std::uint32_t round = 0; round < 3; ++round) different.insert(draw(seed, block, round));
        }
    }
    EXPECT_EQ(different.size(), 27U);
}

TEST(Draw, FindsEverySampleAboutEquallyOften) {
    std::map<std::size_t, int> counts;
    constexpr int draws = 4000;
    for (std::uint32_t block = 0; block < draws; ++block) ++counts[draw_without_replacement(7, block, 0, 1, 8)[0]];
    // Binomial with p = 1/8: mean 500, standard deviation 21; 5 of them.
    for (std::size_t sample = 0; sample < 8; ++sample) EXPECT_NEAR(counts[sample], draws / 8, 105) << sample;
}

TEST(Draw, EmptyAndTooLarge) {
    EXPECT_TRUE(draw_without_replacement(1, 1, 1, 0, 5).empty());
    support::expect_error(ExitStatus::bug, {"no larger than its population"},
                          [] { static_cast<void>(draw_without_replacement(1, 1, 1, 6, 5)); });
}

}  // namespace
}  // namespace espalier
