// Scores and masks against a slow oracle that sorts every group. Scores are exact in float32 here (small integers over
// powers of two), so that the oracle's ties are the kernel's ties.
#include "tests/support/expect.h"
#include "tests/support/matrix.h"
#include "tests/support/test_device.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>

namespace espalier {
namespace {

using namespace support;

struct MaskProblem {
    std::size_t rows, columns;
    PruningPattern pattern;
    std::vector<float> weight, gradient, norms;
    float alpha = 0;
    bool with_gradient = true, with_norms = true;

    double score(std::size_t i) const {
        double factor = !with_gradient && !with_norms ? 1 : 0;
        if (with_norms) factor += static_cast<double>(norms[i % columns]);
        if (with_gradient) factor += static_cast<double>(alpha) * static_cast<double>(gradient[i]);
        return std::fabs(static_cast<double>(weight[i])) * factor;
    }
};

/// Removes the lowest (score, column) of every group, by sorting.
std::vector<std::uint8_t> oracle_mask(const MaskProblem& problem) {
    const std::size_t group = problem.pattern.structured() ? problem.pattern.group : problem.columns;
    const std::size_t remove = problem.pattern.structured() ? problem.pattern.group - problem.pattern.keep
                                                            : problem.pattern.removed_per_row(problem.columns);
    std::vector<std::uint8_t> mask(problem.weight.size(), 1);
    for (std::size_t first = 0; first < mask.size(); first += group) {
        std::vector<std::size_t> order(group);
        std::iota(order.begin(), order.end(), first);
        std::stable_sort(order.begin(), order.end(),
                         [&](std::size_t a, std::size_t b) { return problem.score(a) < problem.score(b); });
        for (std::size_t i = 0; i < remove; ++i) mask[order[i]] = 0;
    }
    return mask;
}

struct Outcome {
    std::size_t unusable;
    std::vector<std::uint8_t> mask;
    std::vector<float> weight;
};

Outcome run(Device& device, const MaskProblem& problem) {
    const std::size_t rows = problem.rows, columns = problem.columns;
    const Tensor weight = upload(device, rows, columns, problem.weight);
    const Tensor mask = upload_bytes(device, rows, columns, std::vector<std::uint8_t>(rows * columns, 77));
    Tensor gradient, norms;
    ScoreTerms terms;
    terms.alpha = problem.alpha;
    if (problem.with_gradient) gradient = upload(device, rows, columns, problem.gradient);
    if (problem.with_norms) norms = upload(device, 1, columns, problem.norms);
    terms.gradient = gradient;
    terms.input_norms = norms;
    const std::size_t unusable = score_and_mask_counting(device, terms, problem.pattern, weight, mask);
    return {unusable, download_bytes(device, mask), download(device, weight)};
}

void expect_oracle(Device& device, const MaskProblem& problem, const std::string& what) {
    const Outcome found = run(device, problem);
    const std::vector<std::uint8_t> mask = oracle_mask(problem);
    std::vector<float> weight = problem.weight;
    for (std::size_t i = 0; i < weight.size(); ++i) weight[i] = mask[i] != 0 ? weight[i] : 0.0F;
    EXPECT_EQ(found.unusable, 0U) << what;
    EXPECT_TRUE(found.mask == mask) << what;
    EXPECT_TRUE(bits_of(found.weight) == bits_of(weight)) << what;
}

/// Scores with many ties, zeros, negative zeros and inputs that are dead.
MaskProblem random_problem(Random& random, std::size_t rows, std::size_t columns, const PruningPattern& pattern) {
    MaskProblem problem{rows, columns, pattern, {}, {}, {}};
    for (std::size_t i = 0; i < rows * columns; ++i) {
        const auto value = static_cast<float>(random.below(9)) / 8 - 0.5F;
        problem.weight.push_back(value == 0 && random.below(2) == 0 ? -0.0F : value);
        problem.gradient.push_back(static_cast<float>(random.below(4)) / 4);
    }
    for (std::size_t j = 0; j < columns; ++j) problem.norms.push_back(static_cast<float>(random.below(3)));
    problem.alpha = static_cast<float>(1U << random.below(4));
    return problem;
}

const PruningPattern patterns[] = {{2, 4, 0.5},   {4, 8, 0.5},      {3, 8, 0.625},      {1, 2, 0.5}, {15, 16, 0.0625},
                                   {7, 17, 0.59}, {20, 32, 0.375},  {1, 100, 0.99},     {0, 0, 0.5}, {0, 0, 0.29},
                                   {0, 0, 0.001}, {0, 0, 0.999999}, {63, 64, 1 / 64.0}, {0, 0, 0.75}};

TEST(ScoreAndMask, EqualsTheOracleForAllPatterns) {
    const auto device = make_test_device();
    Random random(1);
    for (const PruningPattern& pattern : patterns) {
        for (int repetition = 0; repetition < 12; ++repetition) {
            const std::size_t group = pattern.structured() ? pattern.group : 1;
            const std::size_t columns = group * (1 + random.below(400 / group + 1)), rows = 1 + random.below(70);
            MaskProblem problem = random_problem(random, rows, columns, pattern);
            problem.with_gradient = repetition % 2 == 0;
            problem.with_norms = repetition % 4 < 2;
            expect_oracle(*device, problem,
                          pattern.name() + " of " + std::to_string(rows) + "x" + std::to_string(columns));
        }
    }
}

TEST(ScoreAndMask, EqualsTheOracleAtTileEdges) {
    const auto device = make_test_device();
    Random random(2);
    for (const std::size_t columns : {64U, 96U, 4096U, 16384U, 20000U}) {
        for (const std::size_t rows : {1U, 5U}) {
            for (const PruningPattern& pattern : {patterns[0], patterns[6], patterns[8]}) {
                if (pattern.structured() && columns % pattern.group != 0) continue;
                expect_oracle(*device, random_problem(random, rows, columns, pattern), std::to_string(columns));
            }
        }
    }
}

TEST(ScoreAndMask, ArbitraryFloatsUnderWandasScore) {
    // One float32 product a score: rounded alike everywhere, so the order is exact here as well.
    const auto device = make_test_device();
    Random random(3);
    for (const PruningPattern& pattern : {patterns[0], patterns[2], patterns[6], patterns[8]}) {
        MaskProblem problem{33, 160, pattern, random.normals(33 * 160), {}, random.normals(160)};
        for (float& norm : problem.norms) norm = std::fabs(norm);
        problem.with_gradient = false;
        MaskProblem rounded = problem;  // the oracle sorts the rounded products
        for (std::size_t i = 0; i < rounded.weight.size(); ++i) rounded.weight[i] *= rounded.norms[i % 160];
        rounded.norms.assign(160, 1.0F);
        EXPECT_EQ(run(*device, problem).mask, oracle_mask(rounded)) << pattern.name();
    }
}

TEST(ScoreAndMask, AlphaZeroIsWandasScore) {
    const auto device = make_test_device();
    Random random(4);
    MaskProblem problem{40, 128, {2, 4, 0.5}, random.normals(40 * 128), random.normals(40 * 128), random.normals(128)};
    for (float& value : problem.gradient) value = std::fabs(value);
    for (float& value : problem.norms) value = std::fabs(value);
    problem.alpha = 0;
    const Outcome with_gradient = run(*device, problem);
    problem.with_gradient = false;
    EXPECT_EQ(with_gradient.mask, run(*device, problem).mask);
}

TEST(ScoreAndMask, TiesRemoveTheLowerColumn) {
    const auto device = make_test_device();
    for (const auto& [pattern, expected] :
         {std::pair<PruningPattern, std::vector<std::uint8_t>>{{2, 4, 0.5}, {0, 0, 1, 1, 0, 0, 1, 1}},
          {{5, 8, 0.375}, {0, 0, 0, 1, 1, 1, 1, 1}},
          {{0, 0, 0.25}, {0, 0, 1, 1, 1, 1, 1, 1}}}) {
        for (const float value : {1.0F, 0.0F, -0.0F, -3.0F}) {
            MaskProblem problem{1, 8, pattern, std::vector<float>(8, value), {}, {}};
            problem.with_gradient = problem.with_norms = false;
            EXPECT_EQ(run(*device, problem).mask, expected) << pattern.name() << " " << value;
        }
    }
}

TEST(ScoreAndMask, NonFiniteScoresAreCountedAndTheirRowsUntouched) {
    const auto device = make_test_device();
    const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
    Random random(5);
    for (const PruningPattern& pattern : {patterns[0], patterns[6], patterns[8]}) {
        MaskProblem problem{
            3, 64, pattern, random.normals(3 * 64), random.normals(3 * 64), std::vector<float>(64, 1.0F)};
        for (float& value : problem.gradient) value = std::fabs(value);
        problem.alpha = 1;
        problem.weight[64 + 3] = nan;
        problem.weight[64 + 60] = -infinity;
        problem.gradient[64 + 10] = infinity;
        problem.gradient[64 + 11] = nan;
        problem.weight[64 + 12] = 0;
        problem.gradient[64 + 12] = infinity;  // 0 x infinity
        const Outcome found = run(*device, problem);
        EXPECT_EQ(found.unusable, 5U);
        if (test_device_is_gpu()) continue;  // more than a device promises: what it leaves must not be used
        const auto begin = found.weight.begin() + 64;
        EXPECT_EQ(bits_of(std::vector<float>(begin, begin + 64)),
                  bits_of(std::span<const float>(problem.weight).subspan(64, 64)))
            << "the row's weights";
        EXPECT_EQ(std::count(found.mask.begin() + 64, found.mask.begin() + 128, 77), 64) << "the row's mask";
    }
}

TEST(ScoreAndMask, OverflowingProductsAreNonFinite) {
    const auto device = make_test_device();
    MaskProblem problem{1, 4, {2, 4, 0.5}, {1e30F, 1, 2, 3}, {}, {1e30F, 1, 1, 1}};
    problem.with_gradient = false;
    EXPECT_EQ(run(*device, problem).unusable, 1U);
}

TEST(ScoreAndMask, ContractsAreChecked) {
    const auto device = make_test_device();
    const Tensor w = make_poisoned(*device, 2, 6), short_row = make_poisoned(*device, 1, 5);
    const Tensor mask = device->make_tensor(DType::u8, 2, 6, "test"),
                 short_mask = device->make_tensor(DType::u8, 1, 6, "test");
    const auto call = [&](const ScoreTerms& terms, const PruningPattern& pattern, TensorView m) {
        static_cast<void>(score_and_mask_counting(*device, terms, pattern, w, m));
    };
    expect_error(ExitStatus::bug, {"divides"}, [&] { call({}, {2, 4, 0.5}, mask); });
    expect_error(ExitStatus::bug, {"mask"}, [&] { call({}, {1, 2, 0.5}, short_mask); });
    expect_error(ExitStatus::bug, {"norms"}, [&] { call({{}, short_row, 0}, {1, 2, 0.5}, mask); });
    expect_error(ExitStatus::bug, {"gradient"}, [&] { call({short_row, {}, 1}, {1, 2, 0.5}, mask); });
}

}  // namespace
}  // namespace espalier
