// One group finds the rate, or gives it up, and every rank of the world hears of it.
#include "src/prune/learning_rate_exchange.h"
#include "tests/support/ranks.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using namespace support;

class LearningRateExchangeTest : public testing::Test {
  protected:
    static constexpr std::size_t blocks = 6, last_block = blocks - 1;
    PruneOptions options_;
    Topology topology_{static_cast<std::size_t>(world().size()), blocks, 3, 8, 8};

    LearningRateExchangeTest() {
        options_.ro.learning_rate.reset();
        options_.only_blocks = IndexRange{last_block, blocks};  // so that it is not the first group that searches
    }
    std::size_t round_of_search() const { return topology_.rounds() - 1; }
};

TEST_F(LearningRateExchangeTest, TheGroupOfTheFirstPrunedBlockSearches) {
    const LearningRateExchange exchange(session(), options_, topology_, {});
    EXPECT_EQ(exchange.searching_group(), 2U);
    EXPECT_EQ(exchange.speaker(), topology_.groups()[2].ranks.front());
    EXPECT_EQ(exchange.searches_here(), topology_.group_of(world().rank(), round_of_search()) == std::size_t{2});
    for (std::size_t round = 0; round < topology_.rounds(); ++round) {
        EXPECT_EQ(exchange.is_awaited(round), round == round_of_search()) << round;
    }
}

TEST_F(LearningRateExchangeTest, NobodyWaitsForAKnownRateOrWithoutOptimisation) {
    const LearningRateExchange known(session(), options_, topology_, 2e-5);
    EXPECT_EQ(known.rate(), 2e-5);
    EXPECT_FALSE(known.is_awaited(round_of_search()));
    options_.method = Method::wanda;
    EXPECT_FALSE(LearningRateExchange(session(), options_, topology_, {}).is_awaited(round_of_search()));
}

TEST_F(LearningRateExchangeTest, AllHearOfTheRate) {
    LearningRateExchange exchange(session(), options_, topology_, {});
    if (exchange.searches_here())
        exchange.share(3e-6);
    else
        EXPECT_EQ(exchange.receive(), 3e-6);
    EXPECT_EQ(exchange.rate(), 3e-6);
    EXPECT_FALSE(exchange.is_awaited(round_of_search()));
}

TEST_F(LearningRateExchangeTest, AllHearThatNoneComes) {
    LearningRateExchange exchange(session(), options_, topology_, {});
    if (exchange.searches_here())
        exchange.give_up();
    else
        EXPECT_FALSE(exchange.receive().has_value());
    EXPECT_FALSE(exchange.rate().has_value());
}

TEST_F(LearningRateExchangeTest, ARankThatStopsElsewhereTakesPart) {
    LearningRateExchange exchange(session(), options_, topology_, {});
    if (exchange.searches_here())
        exchange.share(3e-6);
    else
        exchange.give_up();
}

}  // namespace
}  // namespace espalier
