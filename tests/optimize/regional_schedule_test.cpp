// What the schedule of regional optimisation draws, and its steps.
#include "src/optimize/regional_schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace espalier {
namespace {

PruneOptions options_of_schedule() {
    PruneOptions options;
    options.ro.samples = 4;
    options.ro.rounds = 3;
    return options;
}

TEST(RegionalSchedule, DrawsDistinctSamplesOfThePopulation) {
    const PruneOptions options = options_of_schedule();
    const std::vector<std::size_t> population = {1, 2, 5, 7, 8, 9};
    const RegionalSchedule schedule(options, 3, population, 1e-3);
    EXPECT_EQ(schedule.rounds(), 3U);
    for (std::size_t round = 0; round < 3; ++round) {
        std::vector<std::size_t> draws = schedule.draw(round);
        EXPECT_EQ(draws, schedule.draw(round)) << "a draw depends on seed, block and round alone";
        std::sort(draws.begin(), draws.end());
        EXPECT_EQ(draws.size(), 4U);
        EXPECT_EQ(std::adjacent_find(draws.begin(), draws.end()), draws.end());
        EXPECT_TRUE(std::includes(population.begin(), population.end(), draws.begin(), draws.end()));
    }
    EXPECT_NE(schedule.draw(0), schedule.draw(1));
    EXPECT_NE(schedule.draw(0), RegionalSchedule(options, 4, population, 1e-3).draw(0)) << "another block";
    EXPECT_EQ(RegionalSchedule(options, 3, {2, 6}, 1e-3).draw(0).size(), 2U) << "no more than there are";
}

TEST(RegionalSchedule, StepsAreNumberedAndScaledByTheBatch) {
    PruneOptions options = options_of_schedule();
    options.ro.batch = 4;
    options.ro.scaling = LearningRateScaling::sqrt;
    const RegionalSchedule schedule(options, 0, {0, 1, 2, 3}, 1e-3);
    EXPECT_EQ(schedule.step(0).number, 1U);
    EXPECT_EQ(schedule.step(7).number, 8U);
    EXPECT_FLOAT_EQ(schedule.step(7).learning_rate, 2e-3F);
    EXPECT_EQ(moments_of(schedule.step(0).rule), 1U);
}

}  // namespace
}  // namespace espalier
