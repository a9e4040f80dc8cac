// Rounds of masks and steps: what a held mask keeps, and what the first round leaves.
#include "src/optimize/regional_optimizer.h"

#include "tests/support/prune_problem.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <utility>
#include <vector>

namespace espalier {
namespace {

using namespace support;

/// Regional optimisation by itself, to look at the weights before the last prune.
class RegionalOptimizerTest : public testing::Test {
  protected:
    PruneProblem problem_;

    /// Weights and mask after all rounds, without the final mask.
    std::pair<std::vector<float>, std::vector<std::uint8_t>> run(const PruneOptions& options) const {
        const auto device = make_test_device(1);
        const auto alone = make_single_communicator();
        const Topology topology(1, 4, 1, problem_.samples, options.shards);
        const GroupContext context{.device = *device,
                                   .group = *alone,
                                   .control = *alone,
                                   .topology = topology,
                                   .block_group = topology.groups()[0],
                                   .config = problem_.config,
                                   .layout = problem_.layout,
                                   .tokens = problem_.tokens};
        DecoderBlock decoder(*device, problem_.config, problem_.tokens, Passes::forward_and_backward, DType::f32);
        BlockWeights weights = upload_block(*device, problem_.layout, problem_.block);
        const HiddenStates x(*device, {0, problem_.samples}, problem_.tokens, problem_.config.hidden_size);
        const DenseOutputs outputs(*device, {0, problem_.samples}, problem_.tokens, problem_.config.hidden_size,
                                   DType::f32);
        device->copy_from_host(problem_.x.data(), x.all());
        InputNormCollector norms(context);
        for (std::size_t n = 0; n < problem_.samples; ++n) {
            norms.begin_sample(n);
            decoder.forward(weights, x.sample(n), outputs.place_of(n), &norms);
        }
        const WeightPartition partition = WeightPartition::balanced(problem_.layout, 1);
        const PartTensor no_gradient;
        const BlockMasker masker(context, options, partition, no_gradient);
        const RealClock time;
        PhaseClock clock(time, {});
        const std::function<void()> on_idle = [] {};
        const RegionalProblem regional{.block = 1,
                                       .decoder = decoder,
                                       .x = x,
                                       .dense_outputs = outputs,
                                       .dense_norms = norms,
                                       .masker = masker,
                                       .first_mask = nullptr,
                                       .on_idle = on_idle};
        BlockTensor mask(*device, problem_.layout, DType::u8, "test");
        RegionalOptimizer optimizer(context, options, regional, weights, mask, clock);
        std::vector<std::size_t> population(problem_.samples);
        std::iota(population.begin(), population.end(), std::size_t{0});
        optimizer.run(population, *options.ro.learning_rate, {});
        return {download(*device, weights.matrices.all()), download_bytes(*device, mask.all())};
    }
};

TEST_F(RegionalOptimizerTest, WithoutHoldMaskNoZerosAreLeftAfterAStep) {
    for (const std::size_t batch : {1U, 4U}) {
        PruneOptions options = problem_.options(Method::ro);
        options.ro.batch = batch;
        const auto [weights, mask] = run(options);
        EXPECT_EQ(std::count(weights.begin(), weights.end(), 0.0F), 0) << "batch " << batch;
    }
}

TEST_F(RegionalOptimizerTest, WithHoldMaskRemovedWeightsStayAtPositiveZero) {
    for (const std::size_t batch : {1U, 4U}) {
        PruneOptions options = problem_.options(Method::ro);
        options.ro.batch = batch;
        options.ro.hold_mask = true;
        const auto [weights, mask] = run(options);
        std::size_t removed = 0;
        for (std::size_t i = 0; i < weights.size(); ++i) {
            if (mask[i] != 0) {
                ASSERT_NE(weights[i], 0.0F);
                continue;
            }
            ++removed;
            ASSERT_EQ(bits_of({&weights[i], 1})[0], 0U) << i;
        }
        EXPECT_EQ(removed, weights.size() / 2);
    }
}

TEST_F(RegionalOptimizerTest, ATinyRateLeavesTheFirstRoundsMaskedWeights) {
    // One round of one step: every weight moves by at most 10 times the rate.
    PruneOptions options = problem_.options(Method::ro);
    options.ro.rounds = 1;
    options.ro.samples = 1;
    options.ro.learning_rate = 1e-4;
    const auto [weights, mask] = run(options);
    for (const LinearLayer layer : problem_.layout.linear_layers()) {
        const MatrixShape& matrix = problem_.layout.matrix(layer);
        for (std::size_t i = 0; i < matrix.size(); ++i) {
            const float start = mask[matrix.offset + i] != 0 ? problem_.block.matrices[index_of(layer)][i] : 0.0F;
            // 10 x rate, up to the rounding of 1 - 0.99 (1.5e-6) and of weights of order 1.
            ASSERT_NEAR(weights[matrix.offset + i], start, 1e-3 * (1 + 1e-5) + 2 * unit_roundoff);
            ASSERT_NE(weights[matrix.offset + i], start) << "and it does move";
        }
    }
}

}  // namespace
}  // namespace espalier
