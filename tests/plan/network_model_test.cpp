// Seconds of messages and collectives, and what a machine's border does to them.
#include "src/plan/network_model.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

constexpr std::size_t giga = 1'000'000'000;

NetworkModel simple() {
    NetworkModel model;
    model.inside = {0, 100e9};
    model.between = {0, 10e9};
    model.ranks_per_machine = 4;
    model.message_overhead = 0;
    return model;
}

TEST(NetworkModel, CollectivesInsideOfAMachineAndBetweenFullOnes) {
    const NetworkModel model = simple();
    EXPECT_EQ(model.all_gather_seconds(1, giga), 0);
    EXPECT_DOUBLE_EQ(model.all_gather_seconds(4, giga), 0.75 / 100);
    EXPECT_DOUBLE_EQ(model.all_gather_seconds(8, giga), 0.875 / 40) << "four links side by side";
    EXPECT_DOUBLE_EQ(model.broadcast_seconds(8, giga), 1.0 / 40);
}

TEST(NetworkModel, TheMachineWithTheFewestRanksHoldsTheOthersUp) {
    const NetworkModel model = simple();
    EXPECT_DOUBLE_EQ(model.broadcast_seconds(5, giga), 1.0 / 10) << "4 + 1 ranks";
    EXPECT_DOUBLE_EQ(model.from_rank(2).broadcast_seconds(4, giga), 1.0 / 20) << "2 + 2 ranks";
    EXPECT_DOUBLE_EQ(model.from_rank(2).broadcast_seconds(2, giga), 1.0 / 100) << "both on the first machine";
    EXPECT_DOUBLE_EQ(model.from_rank(3).broadcast_seconds(2, giga), 1.0 / 10) << "1 + 1 ranks";
}

TEST(NetworkModel, MessagesTakeTheLinkOfTheirOwnRank) {
    const NetworkModel model = simple();
    const std::vector<Message> near = {{1, nullptr, giga}}, far = {{5, nullptr, giga}};
    EXPECT_DOUBLE_EQ(model.exchange_seconds(0, near, {}), 1.0 / 100);
    EXPECT_DOUBLE_EQ(model.exchange_seconds(0, far, near), 1.0 / 10) << "both kinds of links at once";
    EXPECT_DOUBLE_EQ(model.from_rank(3).exchange_seconds(0, near, {}), 1.0 / 10) << "the neighbour is elsewhere";
}

}  // namespace
}  // namespace espalier
