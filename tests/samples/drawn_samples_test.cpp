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

TEST(StepAssignment, TheMostIsThatOfEveryStep) {
    for (std::size_t ranks = 1; ranks <= 16; ++ranks) {
        const StepAssignment assignment = StepAssignment::spread(ranks);
        for (std::size_t batch = 1; batch <= 20; ++batch) {
            for (std::size_t samples = 1; samples <= 45; ++samples) {
                std::vector<std::size_t> most(ranks, 0);
                for (std::size_t first = 0; first < samples; first += batch) {
                    const auto offsets = assignment.offsets(std::min(batch, samples - first));
                    for (std::size_t r = 0; r < ranks; ++r) most[r] = std::max(most[r], offsets[r + 1] - offsets[r]);
                }
                for (std::size_t r = 0; r < ranks; ++r) ASSERT_EQ(assignment.most_of(r, batch, samples), most[r]);
            }
        }
    }
    EXPECT_EQ(StepAssignment::spread(5).most_of(2, 8, 15), 2U) << "1 of 8, but 2 of the last 7";
}

TEST(StepAssignment, AllOnOneRank) {
    EXPECT_EQ(StepAssignment::all_on(4, 2).offsets(5), (std::vector<std::size_t>{0, 0, 0, 5, 5}));
    EXPECT_EQ(StepAssignment::all_on(1, 0).offsets(1), (std::vector<std::size_t>{0, 1}));
}

}  // namespace
}  // namespace espalier
