// A whole block pruned by every method: the checks that need no paper.
#include "src/prune/block_pruner.h"

#include "src/method/block_masker.h"
#include "src/optimize/regional_optimizer.h"
#include "src/weights/mask_check.h"
#include "tests/support/expect.h"
#include "tests/support/prune_problem.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

namespace espalier {
namespace {

using namespace support;

constexpr Method all_methods[] = {Method::magnitude, Method::wanda, Method::sparsegpt,
                                  Method::rgs,       Method::ro,    Method::wanda_plus_plus};
const PruningPattern pruned_patterns[] = {{2, 4, 0.5}, {3, 8, 0.625}, {0, 0, 0.5}, {0, 0, 0.3}};

TEST(BlockPruner, EveryGroupIsExactAfterTheLastPrune) {
    const PruneProblem problem;
    for (const Method method : all_methods) {
        for (const PruningPattern& pattern : pruned_patterns) {
            for (const DType dtype : {DType::f32, DType::bf16}) {
                PruneOptions options = problem.options(method);
                options.pattern = pattern;
                options.output_dtype = dtype;
                const PruneResult result = problem.prune_alone(options);
                for (const MatrixShape& matrix : problem.layout.matrices()) {
                    const auto weights = std::span(result.weights).subspan(matrix.offset, matrix.size());
                    EXPECT_EQ(check_pruned_matrix(std::span(result.mask).subspan(matrix.offset, matrix.size()),
                                                  std::as_bytes(weights), DType::f32, matrix.columns, pattern),
                              "")
                        << name_of(method) << " " << pattern.name() << " " << matrix.name;
                    std::vector<std::byte> stored(matrix.size() * bytes_of(dtype));
                    std::vector<float> back(matrix.size());
                    round_from_float(dtype, weights.data(), weights.size(), stored.data());
                    widen_to_float(dtype, stored.data(), back.size(), back.data());
                    EXPECT_TRUE(std::equal(back.begin(), back.end(), weights.begin()))
                        << "the next block must see the weights exactly as they are written";
                }
            }
        }
    }
}

TEST(BlockPruner, OneShotMethodsKeepTheDenseBitsOfWhatSurvives) {
    const PruneProblem problem;
    for (const Method method : {Method::magnitude, Method::wanda, Method::rgs}) {
        const PruneResult result = problem.prune_alone(problem.options(method));
        for (const LinearLayer layer : all_linear_layers) {
            const MatrixShape& matrix = problem.layout.matrix(layer);
            for (std::size_t i = 0; i < matrix.size(); ++i) {
                const float expected =
                    result.mask[matrix.offset + i] != 0 ? problem.block.matrices[index_of(layer)][i] : 0.0F;
                ASSERT_EQ(result.weights[matrix.offset + i], expected) << name_of(method) << " " << matrix.name;
            }
        }
    }
}

TEST(BlockPruner, MagnitudeRemovesTheSmallestOfEachGroup) {
    const PruneProblem problem;
    const PruneResult result = problem.prune_alone(problem.options(Method::magnitude));
    for (const LinearLayer layer : all_linear_layers) {
        const MatrixShape& matrix = problem.layout.matrix(layer);
        const std::vector<float>& dense = problem.block.matrices[index_of(layer)];
        for (std::size_t first = 0; first < matrix.size(); first += 4) {
            float kept = 1e30F, removed = 0;
            for (std::size_t i = first; i < first + 4; ++i) {
                float& bound = result.mask[matrix.offset + i] != 0 ? kept : removed;
                bound = result.mask[matrix.offset + i] != 0 ? std::min(bound, std::fabs(dense[i]))
                                                            : std::max(bound, std::fabs(dense[i]));
            }
            ASSERT_GE(kept, removed);
        }
    }
}

TEST(BlockPruner, AlphaZeroWithoutOptimisationIsWandasMaskExactly) {
    const PruneProblem problem;
    for (const PruningPattern& pattern : pruned_patterns) {
        PruneOptions rgs = problem.options(Method::rgs), wanda = problem.options(Method::wanda);
        rgs.alpha = 0;
        rgs.pattern = wanda.pattern = pattern;
        EXPECT_TRUE(problem.prune_alone(rgs).mask == problem.prune_alone(wanda).mask) << pattern.name();
        rgs.alpha = 100;
        EXPECT_FALSE(problem.prune_alone(rgs).mask == problem.prune_alone(wanda).mask) << "the gradient has an effect";
    }
}

TEST(BlockPruner, WandasMaskFollowsFromTheInputNorms) {
    // |W| c with c from the float64 block: decisions may differ only where scores differ by rounding.
    const PruneProblem problem;
    const PruneResult result = problem.prune_alone(problem.options(Method::wanda));
    // c of q_proj's input: the normalised hidden states, from their definition.
    const std::size_t hidden = problem.config.hidden_size;
    const std::vector<float>& scale = problem.block.vectors.at(BlockVector::input_norm);
    std::vector<double> norms(hidden, 0);
    for (std::size_t row = 0; row < problem.samples * problem.tokens; ++row) {
        double square = 0;
        for (std::size_t j = 0; j < hidden; ++j)
            square += std::pow(static_cast<double>(problem.x[row * hidden + j]), 2);
        const double mean = square / static_cast<double>(hidden) + static_cast<double>(problem.config.rms_norm_epsilon);
        for (std::size_t j = 0; j < hidden; ++j) {
            const double value = static_cast<double>(problem.x[row * hidden + j]) * static_cast<double>(scale[j]);
            norms[j] += value * value / mean;
        }
    }
    const MatrixShape& matrix = problem.layout.matrix(LinearLayer::q_proj);
    const std::vector<float>& dense = problem.block.matrices[index_of(LinearLayer::q_proj)];
    for (std::size_t first = 0; first < matrix.size(); first += 4) {
        double kept = 1e300, removed = 0;
        for (std::size_t i = first; i < first + 4; ++i) {
            const double score = std::fabs(static_cast<double>(dense[i])) * std::sqrt(norms[i % hidden]);
            if (result.mask[matrix.offset + i] != 0)
                kept = std::min(kept, score);
            else
                removed = std::max(removed, score);
        }
        // A norm's square errs by about (64 + 33) u, its root by half of that.
        ASSERT_GE(kept, removed * (1 - 100 * unit_roundoff)) << "group at " << first;
    }
}

TEST(BlockPruner, MeanNormsChangeTheMaskOnlyBesideAGradient) {
    const PruneProblem problem;
    for (const auto& [method, same] : {std::pair{Method::wanda, true}, {Method::rgs, false}}) {
        PruneOptions sum = problem.options(method), mean = sum;
        mean.input_norm = InputNorm::mean;
        EXPECT_EQ(problem.prune_alone(sum).mask == problem.prune_alone(mean).mask, same) << name_of(method);
    }
}

TEST(BlockPruner, OptimisationDoesNotWorsenTheOutputError) {
    const PruneProblem problem;
    for (const Method method : {Method::ro, Method::wanda_plus_plus}) {
        for (const std::size_t batch : {1U, 4U}) {
            for (const bool hold_mask : {false, true}) {
                // A first step moves weights by 10 times the rate: 1e-3 of weights of about 0.1.
                PruneOptions options = problem.options(method);
                options.ro.learning_rate = 1e-4;
                options.ro.rounds = 5;
                options.ro.scaling = LearningRateScaling::none;
                options.ro.batch = batch;
                options.ro.hold_mask = hold_mask;
                const BlockReport report = problem.prune_alone(options).report;
                EXPECT_LE(report.error_final_first_draw, report.error_after_first_mask)
                    << name_of(method) << " " << batch << hold_mask;
                EXPECT_GT(report.error_final, 0);
            }
        }
    }
}

TEST(BlockPruner, ReportsWhatItDid) {
    const PruneProblem problem;
    PruneOptions options = problem.options(Method::wanda_plus_plus);
    options.pattern = {3, 8, 0.625};
    const PruneResult result = problem.prune_alone(options, 3);
    EXPECT_EQ(result.report.block, 3U);
    for (const double sparsity : result.report.sparsity) EXPECT_EQ(sparsity, 0.625);
    ASSERT_EQ(result.report.draws.size(), 2U);
    for (const auto& draw : result.report.draws) {
        EXPECT_EQ(draw.size(), 6U);
        for (const std::size_t sample : draw) EXPECT_LT(sample, problem.samples);
    }
    EXPECT_NE(result.report.draws[0], result.report.draws[1]);
    EXPECT_EQ(result.report.learning_rate, 1e-3);
    EXPECT_GT(result.report.flops, 0);
    EXPECT_GT(result.report.peak_bytes, 0U);
}

TEST(BlockPruner, SameSeedSameBitsOtherSeedOtherBits) {
    const PruneProblem problem;
    PruneOptions options = problem.options(Method::wanda_plus_plus);
    const PruneResult first = problem.prune_alone(options);
    EXPECT_EQ(bits_of(first.weights), bits_of(problem.prune_alone(options).weights));
    options.seed = 1;
    EXPECT_NE(bits_of(first.weights), bits_of(problem.prune_alone(options).weights));
}

TEST(BlockPruner, SparseGptBeatsWandaOnTheBlocksOutput) {
    const PruneProblem problem("mistral", 24, 12);
    const double sparsegpt = problem.prune_alone(problem.options(Method::sparsegpt)).report.error_final;
    const double wanda = problem.prune_alone(problem.options(Method::wanda)).report.error_final;
    EXPECT_LT(sparsegpt, wanda);
}

TEST(BlockPruner, NextInputsAreThePrunedBlocksOutputs) {
    const PruneProblem problem;
    const PruneResult result = problem.prune_alone(problem.options(Method::wanda));
    HostBlock pruned = problem.block;
    for (const LinearLayer layer : all_linear_layers) {
        const MatrixShape& matrix = problem.layout.matrix(layer);
        const auto begin = result.weights.begin() + static_cast<std::ptrdiff_t>(matrix.offset);
        pruned.matrices[index_of(layer)].assign(begin, begin + static_cast<std::ptrdiff_t>(matrix.size()));
    }
    const std::size_t sample_size = problem.tokens * problem.config.hidden_size;
    double error = 0, norm = 0;
    for (std::size_t n = 0; n < problem.samples; ++n) {
        const std::vector<double> x(problem.x.begin() + static_cast<std::ptrdiff_t>(n * sample_size),
                                    problem.x.begin() + static_cast<std::ptrdiff_t>((n + 1) * sample_size));
        const std::vector<double> y = reference_block(problem.config, pruned, x, problem.tokens),
                                  dense = reference_block(problem.config, problem.block, x, problem.tokens);
        for (std::size_t i = 0; i < sample_size; ++i) {
            // Values up to 30 through 10 float32 steps with sums of up to 160 terms, errors at random.
            ASSERT_NEAR(static_cast<double>(result.next_inputs[n * sample_size + i]), y[i], 160 * unit_roundoff * 30);
            error += (y[i] - dense[i]) * (y[i] - dense[i]);
            norm += dense[i] * dense[i];
        }
    }
    EXPECT_NEAR(result.report.error_final, error / norm, 1e-5 * error / norm) << "relative output error";
}

TEST(BlockPruner, ActivationsThatOverflowAreRefused) {
    PruneProblem problem;
    // silu(gate) * up of order 1e40.
    for (const LinearLayer layer : {LinearLayer::gate_proj, LinearLayer::up_proj}) {
        for (float& weight : problem.block.matrices[index_of(layer)]) weight *= 1e20F;
    }
    expect_input_error({"block 1", "not finite"},
                       [&] { static_cast<void>(problem.prune_alone(problem.options(Method::wanda))); });
}

/// Regional optimisation by itself, to look at the weights before the last prune.
class RegionalOptimizerTest : public testing::Test {
  protected:
    PruneProblem problem_;

    /// Weights and mask after all rounds, without the final mask.
    std::pair<std::vector<float>, std::vector<std::uint8_t>> run(const PruneOptions& options) const {
        const auto device = make_test_device(1);
        const auto alone = make_single_communicator();
        const Topology topology(1, 4, 1, problem_.samples, options.shards);
        const GroupContext context{*device,         *alone,          *alone,         topology, topology.groups()[0],
                                   problem_.config, problem_.layout, problem_.tokens};
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
        const RegionalProblem regional{1, decoder, x, outputs, norms, masker, on_idle};
        BlockTensor mask(*device, problem_.layout, DType::u8);
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
    for (const LinearLayer layer : all_linear_layers) {
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
