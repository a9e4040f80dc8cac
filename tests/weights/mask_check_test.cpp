// The rule that every pruned matrix keeps, by matrices that break it in one place.
#include "src/weights/mask_check.h"

#include "tests/support/random.h"

#include <gtest/gtest.h>

#include <limits>

namespace espalier {
namespace {

struct Pruned {
    std::vector<std::uint8_t> mask;
    std::vector<float> weights;

    std::string check(DType dtype, std::size_t columns, const PruningPattern& pattern) const {
        std::vector<std::byte> stored(weights.size() * bytes_of(dtype));
        round_from_float(dtype, weights.data(), weights.size(), stored.data());
        return check_pruned_matrix(mask, stored, dtype, columns, pattern);
    }
};

/// 3 rows of 8 in 2:4: the first two of each group go.
Pruned good() {
    Pruned matrix;
    for (std::size_t i = 0; i < 24; ++i) {
        matrix.mask.push_back(i % 4 >= 2 ? 1 : 0);
        matrix.weights.push_back(i % 4 >= 2 ? static_cast<float>(i) : 0.0F);
    }
    return matrix;
}
const PruningPattern checked_two_of_four = {2, 4, 0.5}, checked_half = {0, 0, 0.5};

TEST(CheckPrunedMatrix, AcceptsExactMatrices) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
        EXPECT_EQ(good().check(dtype, 8, checked_two_of_four), "");
        EXPECT_EQ(good().check(dtype, 8, checked_half), "");
    }
    // A kept weight may happen to be zero.
    Pruned matrix = good();
    matrix.weights[2] = 0;
    EXPECT_EQ(matrix.check(DType::f32, 8, checked_two_of_four), "");
    matrix.weights[3] = -0.0F;
    EXPECT_EQ(matrix.check(DType::f32, 8, checked_two_of_four), "");
    EXPECT_EQ(Pruned().check(DType::f32, 8, checked_two_of_four), "");
}

TEST(CheckPrunedMatrix, NamesAGroupThatIsNotExact) {
    Pruned matrix = good();
    matrix.mask[8 + 6] = 0;
    matrix.weights[8 + 6] = 0;
    EXPECT_EQ(matrix.check(DType::f32, 8, checked_two_of_four),
              "the group that starts at row 1, column 4 removes 3 weights, not 2");
    matrix = good();
    matrix.mask[16] = 1;
    EXPECT_EQ(matrix.check(DType::f32, 8, checked_two_of_four),
              "the group that starts at row 2, column 0 removes 1 weights, not 2");
    // Right in total, wrong by group: exact for the unstructured pattern only.
    matrix = good();
    matrix.mask[0] = 1;
    matrix.mask[6] = 0;
    matrix.weights[6] = 0;
    EXPECT_NE(matrix.check(DType::f32, 8, checked_two_of_four), "");
    EXPECT_EQ(matrix.check(DType::f32, 8, checked_half), "");
}

TEST(CheckPrunedMatrix, NamesARemovedWeightThatIsNotPositiveZero) {
    for (const float value : {-0.0F, 1e-30F, -3.0F, std::numeric_limits<float>::quiet_NaN()}) {
        Pruned matrix = good();
        matrix.weights[8 + 5] = value;
        EXPECT_EQ(matrix.check(DType::f32, 8, checked_two_of_four), "the removed weight at row 1, column 5 is not +0.0")
            << value;
    }
}

TEST(CheckPrunedMatrix, NamesAKeptWeightThatIsNotFinite) {
    for (const float value : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
        for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
            Pruned matrix = good();
            matrix.weights[16 + 7] = value;
            EXPECT_EQ(matrix.check(dtype, 8, checked_two_of_four), "the weight at row 2, column 7 is not finite");
        }
    }
}

}  // namespace
}  // namespace espalier
