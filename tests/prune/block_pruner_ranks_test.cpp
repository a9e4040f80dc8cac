// Pruning a block on several ranks gives the bits of one rank, for every method. Every rank also prunes alone, with a
// communicator of its own, and compares.
#include "tests/support/prune_problem.h"
#include "tests/support/ranks.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace espalier {
namespace {

using namespace support;

void expect_same_as_alone(const PruneProblem& problem, const PruneOptions& options, const std::string& what) {
    for (const std::size_t block : {0U, 1U}) {  // owned by different ranks
        const PruneResult together = problem.prune(options, world(), block),
                          alone = problem.prune_alone(options, block);
        EXPECT_TRUE(bits_of(together.weights) == bits_of(alone.weights)) << what << ": weights of block " << block;
        EXPECT_TRUE(together.mask == alone.mask) << what << ": mask of block " << block;
        EXPECT_TRUE(bits_of(together.next_inputs) == bits_of(alone.next_inputs))
            << what << ": inputs of the next block";
        EXPECT_EQ(together.report.error_final, alone.report.error_final) << what;
        EXPECT_EQ(together.report.error_after_first_mask, alone.report.error_after_first_mask) << what;
        EXPECT_EQ(together.report.changed_mask_share, alone.report.changed_mask_share) << what;
        EXPECT_EQ(together.report.draws, alone.report.draws) << what;
    }
}

class OnSeveralRanks : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Methods, OnSeveralRanks,
                         testing::Values("magnitude", "wanda", "sparsegpt", "rgs", "ro", "wanda++", "rgs+sparsegpt+ro",
                                         "reconstruct", "wanda+reconstruct"),
                         [](const auto& info) {
                             std::string name = info.param;
                             std::replace(name.begin(), name.end(), '+', '_');
                             return name;
                         });

TEST_P(OnSeveralRanks, BitsAreThoseOfOneRank) {
    const PruneProblem problem;
    const Method method = method_from_name(GetParam());
    expect_same_as_alone(problem, problem.options(method), "2:4");
    PruneOptions unstructured = problem.options(method);
    unstructured.pattern = {0, 0, 0.5};
    unstructured.output_dtype = DType::bf16;
    expect_same_as_alone(problem, unstructured, "unstructured, bfloat16");
}

TEST(OnSeveralRanksWithBatches, BitsAreThoseOfOneRank) {
    const PruneProblem problem;
    for (const std::size_t batch : {2U, 4U, 5U}) {  // 6 draws: also a smaller last batch
        PruneOptions options = problem.options(Method::wanda_plus_plus);
        options.ro.batch = batch;
        options.ro.hold_mask = batch == 4;
        expect_same_as_alone(problem, options, "batch " + std::to_string(batch));
    }
}

TEST(OnSeveralRanksWithBatches, PassesOfAReconstructionAreShared) {
    const PruneProblem problem("mistral", 8, 90);  // two samples a pass
    PruneOptions options = problem.options(Method::reconstruct);
    options.reconstruction.epochs = 1;
    options.reconstruction.batch = 5;  // of seven: also a smaller last step
    EXPECT_EQ(options.samples_of_pass(), 2U);
    expect_same_as_alone(problem, options, "dense stream");
    options.reconstruction.target = ReconstructionTarget::block;
    options.reconstruction.batch = 4;
    expect_same_as_alone(problem, options, "block");
}

TEST(OnSeveralRanksWithFewShards, RanksWithoutSamplesTakePart) {
    const PruneProblem problem("qwen3", 5, 4);
    for (const std::size_t shards : {1U, 2U, 5U}) {
        PruneOptions options = problem.options(Method::wanda_plus_plus);
        options.shards = shards;
        options.ro.samples = 32;  // more than there are
        expect_same_as_alone(problem, options, std::to_string(shards) + " shards");
    }
}

TEST(OnSeveralRanksWithSearch, TheSameRateIsChosen) {
    const PruneProblem problem("mistral", 9, 4);
    PruneOptions options = problem.options(Method::ro);
    options.ro.learning_rate.reset();
    options.ro.rounds = 1;
    options.ro.samples = 3;
    const PruneResult together = problem.prune(options, world()), alone = problem.prune_alone(options);
    EXPECT_EQ(together.report.learning_rate, alone.report.learning_rate);
    EXPECT_GT(alone.report.learning_rate, 0);
    EXPECT_TRUE(bits_of(together.weights) == bits_of(alone.weights));
}

}  // namespace
}  // namespace espalier
