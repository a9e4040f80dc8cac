// What a person reads while a run goes on.
#include "src/report/progress.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

Json block_metrics(std::size_t index, bool pruned) {
    return {{"index", index},
            {"pruned", pruned},
            {"seconds", {{"statistics", 1.5}}},
            {"error_after_first_mask", 0.5},
            {"flops", 1e9},
            {"error_final", 0.5},
            {"peak_bytes", 1024}};
}

/// The line of one block, where stderr is no terminal.
std::string line_of(Progress& progress, const Json& metrics, std::size_t done, std::size_t total,
                    std::size_t to_prune) {
    testing::internal::CaptureStderr();
    progress.block(metrics, done, total, to_prune);
    return testing::internal::GetCapturedStderr();
}

TEST(Progress, TimeLeftIsThatOfBlocksToPrune) {
    Progress progress(true);
    EXPECT_NE(line_of(progress, block_metrics(0, false), 1, 8, 2).find("ETA not known yet"), std::string::npos)
        << "blocks that were copied say nothing of the time that others take";
    const std::string first = line_of(progress, block_metrics(1, true), 2, 8, 1);
    EXPECT_NE(first.find("block   1 (2/8)"), std::string::npos) << first;
    EXPECT_EQ(first.find("not known"), std::string::npos) << first;
    const std::string last = line_of(progress, block_metrics(2, true), 3, 8, 0);
    EXPECT_NE(last.find("ETA 0"), std::string::npos) << "only copies are left: " << last;
}

TEST(Progress, SaysNothingOnOtherRanks) {
    Progress progress(false);
    EXPECT_EQ(line_of(progress, block_metrics(0, true), 1, 8, 7), "");
}

}  // namespace
}  // namespace espalier
