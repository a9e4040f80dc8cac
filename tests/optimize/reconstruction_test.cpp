// What a reconstruction leaves: less error than before, or what it began with, and every removed weight at zero.
#include "src/optimize/reconstruction.h"

#include "tests/support/expect.h"
#include "tests/support/prune_problem.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace espalier {
namespace {

using namespace support;

class ReconstructionTest : public testing::Test {
  protected:
    PruneProblem problem_{"mistral", 16, 12};
    PruneOptions options_ = problem_.options(method_from_name("wanda+reconstruct"));

    ReconstructionTest() {
        options_.reconstruction.epochs = 6;
        options_.reconstruction.learning_rate = 3e-2;
    }
};

TEST_F(ReconstructionTest, TheHeldOutErrorFalls) {
    for (const auto& [method, share] :
         {std::pair{"wanda+reconstruct", 0.9}, {"magnitude+reconstruct", 0.9}, {"rgs+sparsegpt+reconstruct", 1.0}}) {
        options_.method = method_from_name(method);
        const PruneResult result = problem_.prune_alone(options_);
        const std::vector<double>& errors = result.report.held_out_errors;
        ASSERT_EQ(errors.size(), 7U) << method;
        // Not the start's own: without the first.
        EXPECT_LT(*std::min_element(errors.begin() + 1, errors.end()), share * errors.front()) << method;
        options_.method.optimization = Optimization::none;
        EXPECT_LE(result.report.error_final, share * problem_.prune_alone(options_).report.error_final) << method;
    }
}

TEST_F(ReconstructionTest, TheMaskIsThatOfTheStart) {
    const PruneResult result = problem_.prune_alone(options_);
    const PruneResult start = problem_.prune_alone(problem_.options(Method::wanda));
    EXPECT_TRUE(result.mask == start.mask);
    EXPECT_EQ(result.report.changed_mask_share, 0);
    for (std::size_t i = 0; i < result.mask.size(); ++i) {
        if (result.mask[i] == 0) {
            ASSERT_EQ(bits_of({&result.weights[i], 1})[0], 0U) << i;
        }
    }
}

TEST_F(ReconstructionTest, NeverWorseThanTheStart) {
    options_.reconstruction.learning_rate = 5;  // far too large
    const PruneResult result = problem_.prune_alone(options_);
    const std::vector<double>& errors = result.report.held_out_errors;
    ASSERT_EQ(std::min_element(errors.begin(), errors.end()), errors.begin())
        << "the rate is large enough for the test";
    const PruneResult start = problem_.prune_alone(problem_.options(Method::wanda));
    EXPECT_TRUE(bits_of(result.weights) == bits_of(start.weights));
}

TEST_F(ReconstructionTest, ADenseStreamThatIsThePrunedOneIsTheBlocksOwnTarget) {
    const PruneResult of_stream = problem_.prune_alone(options_);  // the first block of a run
    options_.reconstruction.target = ReconstructionTarget::block;
    const PruneResult of_block = problem_.prune_alone(options_);
    EXPECT_TRUE(bits_of(of_stream.weights) == bits_of(of_block.weights));
    EXPECT_EQ(of_stream.report.held_out_errors, of_block.report.held_out_errors);
}

TEST_F(ReconstructionTest, BitsDoNotDependOnWhereSamplesLie) {
    const PruneResult expected = problem_.prune_alone(options_);
    problem_.place = StoragePlace::host;
    const PruneResult found = problem_.prune_alone(options_);
    EXPECT_TRUE(bits_of(found.weights) == bits_of(expected.weights));
    EXPECT_TRUE(bits_of(found.next_inputs) == bits_of(expected.next_inputs));
}

TEST_F(ReconstructionTest, RatesThatOverflowAreSaid) {
    options_.reconstruction.learning_rate = 1e30;
    expect_input_error({"block 1", "--learning-rate"}, [&] { static_cast<void>(problem_.prune_alone(options_)); });
}

TEST(PassesOfAReconstruction, ShortSamplesGoTogether) {
    PruneOptions options;
    options.method = Method::reconstruct;
    options.reconstruction.batch = 8;
    for (const auto& [length, at_once] : {std::pair{64U, 4U}, {2048U, 1U}, {100U, 2U}, {5U, 8U}}) {
        options.sequence_length = length;
        EXPECT_EQ(options.samples_of_pass(), at_once) << length;
        EXPECT_EQ(options.owner_steps_alone(), at_once == 8) << length;
    }
    options.method = Method::ro;
    EXPECT_EQ(options.samples_of_pass(), 1U);
    EXPECT_TRUE(options.owner_steps_alone());
}

}  // namespace
}  // namespace espalier
