// A whole block pruned by every method: the checks that need no paper.
#include "src/prune/block_pruner.h"

#include "src/weights/mask_check.h"
#include "tests/support/expect.h"
#include "tests/support/prune_problem.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace espalier {
namespace {

using namespace support;

/// Compositions that were not published, with and without a mask by scores.
constexpr Method wanda_compensated = {Score::wanda, Compensation::sparsegpt, Optimization::none},
                 compensated_and_optimised = {Score::rgs, Compensation::sparsegpt, Optimization::regional},
                 sparsegpt_optimised = {Score::sparsegpt, Compensation::sparsegpt, Optimization::regional};
constexpr Method all_methods[] = {
    Method::magnitude,       Method::wanda,     Method::sparsegpt,         Method::rgs,        Method::ro,
    Method::wanda_plus_plus, wanda_compensated, compensated_and_optimised, sparsegpt_optimised};
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
        for (const LinearLayer layer : problem.layout.linear_layers()) {
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
    for (const LinearLayer layer : problem.layout.linear_layers()) {
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
    const std::vector<float>& scale = problem.block.vector(*problem.layout.attention.input_norm);
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
    const MatrixShape& matrix = problem.layout.matrix(problem.layout.attention.q);
    const std::vector<float>& dense = problem.block.matrix(problem.layout.attention.q);
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
    for (const Method method : {Method::ro, Method::wanda_plus_plus, compensated_and_optimised, sparsegpt_optimised}) {
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

TEST(BlockPruner, CompensationKeepsTheMaskOfItsScoreAndLowersTheOutputError) {
    const PruneProblem problem("mistral", 24, 12);
    for (const PruningPattern pattern : {PruningPattern{2, 4, 0.5}, PruningPattern{0, 0, 0.6}}) {
        PruneOptions alone = problem.options(Method::wanda), together = problem.options(wanda_compensated);
        alone.pattern = together.pattern = pattern;
        const PruneResult masked = problem.prune_alone(alone), compensated = problem.prune_alone(together);
        EXPECT_TRUE(masked.mask == compensated.mask) << pattern.name();
        EXPECT_LT(compensated.report.error_final, masked.report.error_final) << pattern.name();
    }
}

TEST(BlockPruner, OptimisationOfSparseGptsWeightsKeepsItsMask) {
    const PruneProblem problem("mistral", 24, 12);
    PruneOptions options = problem.options(sparsegpt_optimised);
    options.ro.learning_rate = 1e-4;
    const PruneResult swept = problem.prune_alone(problem.options(Method::sparsegpt)),
                      optimised = problem.prune_alone(options);
    EXPECT_TRUE(swept.mask == optimised.mask);
    EXPECT_EQ(optimised.report.changed_mask_share, 0);
    EXPECT_LT(optimised.report.error_final, swept.report.error_final);
}

TEST(BlockPruner, TheSearchOfARateLeavesWhereItBegan) {
    const PruneProblem problem;
    for (const Method method : {Method::ro, compensated_and_optimised}) {
        PruneOptions options = problem.options(method);
        options.ro.learning_rate.reset();
        const PruneResult searched = problem.prune_alone(options);
        options.ro.learning_rate = searched.report.learning_rate;
        EXPECT_EQ(bits_of(searched.weights), bits_of(problem.prune_alone(options).weights)) << name_of(method);
    }
}

TEST(BlockPruner, NextInputsAreThePrunedBlocksOutputs) {
    const PruneProblem problem;
    const PruneResult result = problem.prune_alone(problem.options(Method::wanda));
    HostBlock pruned = problem.block;
    for (const LinearLayer layer : problem.layout.linear_layers()) {
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
    for (const LinearLayer layer : {problem.layout.mlp.gate, problem.layout.mlp.up}) {
        for (float& weight : problem.block.matrices[index_of(layer)]) weight *= 1e20F;
    }
    expect_input_error({"block 1", "not finite"},
                       [&] { static_cast<void>(problem.prune_alone(problem.options(Method::wanda))); });
}

}  // namespace
}  // namespace espalier
