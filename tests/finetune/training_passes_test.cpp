// Which samples a step takes, and which go through the model together.
#include "src/finetune/training_passes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

namespace espalier {
namespace {

FinetuneOptions options_of(std::size_t samples, std::size_t held_out, std::size_t batch) {
    FinetuneOptions options;
    options.samples = samples;
    options.held_out = held_out;
    options.batch = batch;
    return options;
}

TEST(TrainingPasses, ShortSamplesGoTogetherAndLongOnesAlone) {
    std::vector<std::size_t> samples(11);
    std::iota(samples.begin(), samples.end(), std::size_t{5});
    const auto sizes = [&](std::size_t length) {
        std::vector<std::size_t> found;
        for (const TrainingPass& pass : passes_of(samples, length)) found.push_back(pass.samples.size());
        return found;
    };
    EXPECT_EQ(sizes(64), (std::vector<std::size_t>{4, 4, 3}));
    EXPECT_EQ(sizes(2048), std::vector<std::size_t>(11, 1));
    EXPECT_EQ(passes_of(samples, 64)[2].samples, (std::vector<std::size_t>{13, 14, 15}));
}

TEST(TrainingPasses, IdsAreThoseOfTheirSamplesInOrder) {
    const std::vector<std::int32_t> all = {0, 1, 2, 10, 11, 12, 20, 21, 22};
    const TrainingPass pass{{2, 0}};
    EXPECT_EQ(pass.ids(all, 3), (std::vector<std::int32_t>{20, 21, 22, 0, 1, 2}));
    EXPECT_EQ(pass.segments(3).size(), 2U);
}

TEST(SamplesOfAStep, EveryEpochTakesEachTrainingSampleOnceInANewOrder) {
    const FinetuneOptions options = options_of(14, 4, 4);
    std::vector<std::size_t> drawn;
    for (std::size_t step = 0; step < 5; ++step) {
        const std::vector<std::size_t> of_step = samples_of_step(options, step);
        EXPECT_EQ(of_step.size(), 4U);
        drawn.insert(drawn.end(), of_step.begin(), of_step.end());
    }
    for (const std::size_t epoch : {0U, 1U}) {
        const auto begin = drawn.begin() + static_cast<std::ptrdiff_t>(epoch * 10);
        const std::set<std::size_t> of_epoch(begin, begin + 10);
        EXPECT_EQ(of_epoch.size(), 10U);
        EXPECT_LT(*of_epoch.rbegin(), 10U) << "held-out samples are never trained on";
    }
    EXPECT_FALSE(std::equal(drawn.begin(), drawn.begin() + 10, drawn.begin() + 10));
    EXPECT_EQ(held_out_samples(options), (std::vector<std::size_t>{10, 11, 12, 13}));
}

TEST(LearningRate, WarmsUpAndFallsToZeroInALine) {
    FinetuneOptions options;
    options.learning_rate = 1;
    options.steps = 20;
    options.warm_up = 0.2;
    EXPECT_DOUBLE_EQ(options.learning_rate_of(0), 0.25);
    EXPECT_DOUBLE_EQ(options.learning_rate_of(3), 1);
    EXPECT_DOUBLE_EQ(options.learning_rate_of(4), 1);
    EXPECT_DOUBLE_EQ(options.learning_rate_of(12), 0.5);
    EXPECT_DOUBLE_EQ(options.learning_rate_of(19), 1.0 / 16);
    options.warm_up = 0;
    EXPECT_DOUBLE_EQ(options.learning_rate_of(0), 1);
    options.warm_up = 1;
    EXPECT_DOUBLE_EQ(options.learning_rate_of(19), 1);
}

}  // namespace
}  // namespace espalier
