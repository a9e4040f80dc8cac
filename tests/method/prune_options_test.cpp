// What decides the result of a run, and small rules of the methods.
#include "src/method/prune_options.h"

#include "tests/support/expect.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

namespace espalier {
namespace {

using support::expect_input_error;

TEST(PruneOptions, DecidingValuesChangeWithEveryOptionThatDecides) {
    const auto with = [](const auto& change) {
        PruneOptions options;
        change(options);
        return options.deciding_values({});
    };
    const Json defaults = PruneOptions().deciding_values({});
    using Change = std::function<void(PruneOptions&)>;
    const std::vector<Change> deciding = {[](PruneOptions& o) { o.method = Method::ro; },
                                          [](PruneOptions& o) {
                                              o.pattern = {4, 8, 0.5};
                                          },
                                          [](PruneOptions& o) {
                                              o.pattern = {0, 0, 0.5};
                                          },
                                          [](PruneOptions& o) { o.samples = 64; },
                                          [](PruneOptions& o) { o.sequence_length = 1024; },
                                          [](PruneOptions& o) { o.seed = 1; },
                                          [](PruneOptions& o) { o.alpha = 50; },
                                          [](PruneOptions& o) { o.ro.samples = 16; },
                                          [](PruneOptions& o) { o.ro.rounds = 3; },
                                          [](PruneOptions& o) { o.ro.learning_rate = 1e-5; },
                                          [](PruneOptions& o) { o.ro.learning_rate.reset(); },
                                          [](PruneOptions& o) { o.ro.batch = 4; },
                                          [](PruneOptions& o) { o.ro.scaling = LearningRateScaling::linear; },
                                          [](PruneOptions& o) { o.ro.hold_mask = true; },
                                          [](PruneOptions& o) { o.input_norm = InputNorm::mean; },
                                          [](PruneOptions& o) { o.block_groups = 2; },
                                          [](PruneOptions& o) { o.shards = 4; },
                                          [](PruneOptions& o) { o.output_dtype = DType::bf16; },
                                          [](PruneOptions& o) {
                                              o.only_blocks = IndexRange{1, 3};
                                          },
                                          [](PruneOptions& o) {
                                              o.only_blocks = IndexRange{1, 4};
                                          }};
    std::vector<Json> seen = {defaults};
    for (std::size_t i = 0; i < deciding.size(); ++i) {
        seen.push_back(with(deciding[i]));
        for (std::size_t j = 0; j + 1 < seen.size(); ++j) EXPECT_NE(seen.back(), seen[j]) << "change " << i;
    }
    // The share of an unstructured pattern.
    EXPECT_NE(with([](PruneOptions& o) {
                  o.pattern = {0, 0, 0.5};
              }),
              with([](PruneOptions& o) {
                  o.pattern = {0, 0, 0.6};
              }));
    // What computes, and on a GPU how it multiplies.
    PruneOptions exact;
    exact.ro.compute = RegionalCompute::float32;
    EXPECT_NE(PruneOptions().deciding_values({true, "H100"}), PruneOptions().deciding_values({true, "A100"}));
    EXPECT_NE(exact.deciding_values({true, "H100"}), PruneOptions().deciding_values({true, "H100"}));
    EXPECT_EQ(exact.deciding_values({}), defaults);
    // Where files lie and whether the run starts over does not decide.
    EXPECT_EQ(with([](PruneOptions& o) {
                  o.model = "m";
                  o.calibration = "c";
                  o.output = "o";
                  o.fresh = true;
              }),
              defaults);
}

TEST(PruneOptions, ValuesOfOtherMethodsDoNotDecide) {
    PruneOptions wanda;
    wanda.method = Method::wanda;
    const Json before = wanda.deciding_values({});
    wanda.alpha = 3;
    wanda.ro.rounds = 9;
    wanda.ro.hold_mask = true;
    EXPECT_EQ(wanda.deciding_values({}), before);
    PruneOptions rgs;
    rgs.method = Method::rgs;
    EXPECT_TRUE(rgs.deciding_values({}).contains("alpha"));
    EXPECT_FALSE(rgs.deciding_values({}).contains("ro-rounds"));
}

TEST(PruneOptions, OnlyBlocks) {
    PruneOptions options;
    EXPECT_TRUE(options.prunes(0));
    options.only_blocks = IndexRange{2, 4};
    EXPECT_EQ(options.deciding_values({})["only-blocks"], "2-3");
    EXPECT_FALSE(options.prunes(1));
    EXPECT_TRUE(options.prunes(2));
    EXPECT_TRUE(options.prunes(3));
    EXPECT_FALSE(options.prunes(4));
}

TEST(RegionalOptimizationOptions, RateGrowsWithTheBatch) {
    RegionalOptimizationOptions ro;
    ro.batch = 16;
    ro.scaling = LearningRateScaling::none;
    EXPECT_EQ(ro.scaled_rate(0.5), 0.5);
    ro.scaling = LearningRateScaling::sqrt;
    EXPECT_EQ(ro.scaled_rate(0.5), 2);
    ro.scaling = LearningRateScaling::linear;
    EXPECT_EQ(ro.scaled_rate(0.5), 8);
    EXPECT_EQ(RegionalOptimizationOptions().learning_rate, 3e-7);
}

}  // namespace
}  // namespace espalier
