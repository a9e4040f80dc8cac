// The network that ranks of this machine measure between each other.
#include "src/plan/measure_network.h"
#include "tests/support/ranks.h"
#include "tests/support/test_device.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using namespace support;

TEST(MeasuredNetworkOfRanks, OneMachine) {
    const auto device = make_test_device();
    ASSERT_EQ(placement_problem(session()), "");
    DeviceModel like = device_model(test_device_is_gpu() ? "h100" : "cpu");
    like.name = "nothing";
    like.network = {{5.0, 7.0}, {3.0, 11.0}, 13, 2.0};  // of no network
    const MeasuredNetwork measured = measure_network(session(), *device, like);
    EXPECT_FALSE(measured.between);
    EXPECT_EQ(measured.model.between.latency, 3.0);
    EXPECT_EQ(measured.model.between.bandwidth, 11.0);
    EXPECT_EQ(measured.model.ranks_per_machine, 13U);
    EXPECT_NE(measured.origin.find("as of nothing"), std::string::npos) << measured.origin;
    EXPECT_EQ(measured.inside, world().size() > 1);
    if (world().size() == 1) {
        EXPECT_EQ(measured.model.inside.latency, 5.0);
        EXPECT_EQ(measured.model.message_overhead, 2.0);
        return;
    }
    // Far more than a message takes, and less than any memory moves.
    EXPECT_GE(measured.model.inside.latency, 0.0);
    EXPECT_LT(measured.model.inside.latency, 1.0);
    EXPECT_LT(measured.model.message_overhead, 1.0);
    EXPECT_GT(measured.model.inside.bandwidth, 1e5);
    for (const double seen : world().all_gather_value(measured.model.inside.bandwidth)) {
        EXPECT_EQ(seen, measured.model.inside.bandwidth) << "every rank has the same model";
    }
}

}  // namespace
}  // namespace espalier
