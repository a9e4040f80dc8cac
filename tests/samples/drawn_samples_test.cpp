// Which ranks compute which samples of an optimiser step.
#include "src/samples/drawn_samples.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

namespace espalier {
namespace {

TEST(StepAssignment, SpreadGivesRunsToTheFirstRanks) {
    for (std::size_t ranks = 1; ranks <= 9; ++ranks) {
        for (std::size_t batch = 1; batch <= 20; ++batch) {
            const auto offsets = StepAssignment::spread(ranks).offsets(batch);
            ASSERT_EQ(offsets.size(), ranks + 1);
            ASSERT_EQ(offsets.front(), 0U);
            ASSERT_EQ(offsets.back(), batch);
            const std::size_t computing = std::min(batch, ranks);
            for (std::size_t r = 0; r < ranks; ++r) {
                const std::size_t size = offsets[r + 1] - offsets[r];
                if (r >= computing) {
                    ASSERT_EQ(size, 0U);
                } else {
                    ASSERT_TRUE(size == batch / computing || size == batch / computing + 1);
                }
            }
        }
    }
}

TEST(StepAssignment, AllOnOneRank) {
    EXPECT_EQ(StepAssignment::all_on(4, 2).offsets(5), (std::vector<std::size_t>{0, 0, 0, 5, 5}));
    EXPECT_EQ(StepAssignment::all_on(1, 0).offsets(1), (std::vector<std::size_t>{0, 1}));
}

}  // namespace
}  // namespace espalier
