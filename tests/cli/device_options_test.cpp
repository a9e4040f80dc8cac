// Which GPU a rank takes, and which launches are refused.
#include "src/cli/device_options.h"

#include "src/cli/commands.h"
#include "tests/support/expect.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using namespace support;

TEST(ChooseGpu, OneForEachRankOfAMachine) {
    for (int rank = 0; rank < 4; ++rank) {
        EXPECT_EQ(choose_gpu(rank, 4, 4), rank);
        EXPECT_EQ(choose_gpu(rank, 4, 8), rank);
    }
    EXPECT_EQ(choose_gpu(0, 1, 1), 0);
}

TEST(ChooseGpu, ATaskThatSeesOneGpuTakesIt) {
    // Whether it is the same one for two ranks is for check_devices, which compares UUIDs.
    EXPECT_EQ(choose_gpu(3, 4, 1), 0);
}

TEST(ChooseGpu, RefusesFewerGpusThanRanks) {
    expect_error(ExitStatus::input, {"4 ranks", "see 2 GPUs", "--gpus-per-node", "CUDA_VISIBLE_DEVICES"},
                 [] { choose_gpu(0, 4, 2); });
}

}  // namespace
}  // namespace espalier
