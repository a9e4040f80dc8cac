// The choice of a learning rate as a manifest keeps it.
#include "src/optimize/learning_rate_search.h"

#include <gtest/gtest.h>

#include <cmath>

namespace espalier {
namespace {

TEST(LearningRateChoice, SurvivesJson) {
    LearningRateChoice choice;
    choice.learning_rate = 3e-5;
    choice.candidates = {{3e-7, 0.25}, {3e-5, 0.125}, {1e-3}};
    const LearningRateChoice back = LearningRateChoice::from_json(Json::parse(choice.to_json().dump()));
    EXPECT_EQ(back.learning_rate, 3e-5);
    ASSERT_EQ(back.candidates.size(), 3U);
    EXPECT_EQ(back.candidates[1].held_out_error, 0.125);
    EXPECT_TRUE(std::isinf(back.candidates[2].held_out_error)) << "a rate that diverged";
}

}  // namespace
}  // namespace espalier
