// The emulated cuBLASLt and the Cholesky factors of the emulated cuSOLVER.
#include "tests/emulation/cholesky.h"
#include "tests/emulation/emulation_test.h"
#include "tests/emulation/matrix_product.h"

#include <cublasLt.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace espalier::emulation {
namespace {

/// Small whole numbers, which every type holds and every sum keeps exactly.
std::vector<float> whole_numbers(std::size_t count, int seed) {
    std::vector<float> values(count);
    for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<float>((static_cast<int>(i) * 7 + seed) % 11 - 5);
    return values;
}

template <typename T>
std::vector<T> converted(const std::vector<float>& values) {
    std::vector<T> result;
    for (const float value : values) result.push_back(static_cast<T>(value));
    return result;
}

struct Sizes {
    std::size_t m, n, k;
    bool a_transposed, b_transposed;
};

/// Matrices with padding behind their columns, multiplied and compared with a plain loop.
template <typename T>
void expect_product(const Sizes& s, cudaDataType_t type, bool accumulate) {
    const std::size_t a_rows = s.a_transposed ? s.k : s.m, a_columns = s.a_transposed ? s.m : s.k;
    const std::size_t b_rows = s.b_transposed ? s.n : s.k, b_columns = s.b_transposed ? s.k : s.n;
    const std::size_t a_leading = a_rows + 3, b_leading = b_rows + 1, leading = s.m + 2;
    const std::vector<float> a = whole_numbers(a_leading * a_columns, 1), b = whole_numbers(b_leading * b_columns, 4);
    std::vector<float> c = whole_numbers(leading * s.n, 2);
    const std::vector<float> before = c;
    const std::vector<T> a_stored = converted<T>(a), b_stored = converted<T>(b);
    const ColumnMajor result{c.data(), CUDA_R_32F, s.m, s.n, leading, false};
    multiply({a_stored.data(), type, a_rows, a_columns, a_leading, s.a_transposed},
             {b_stored.data(), type, b_rows, b_columns, b_leading, s.b_transposed}, false,
             accumulate ? result : ColumnMajor{}, result);
    for (std::size_t j = 0; j < s.n; ++j) {
        for (std::size_t i = 0; i < leading; ++i) {
            float expected = i < s.m && !accumulate ? 0 : before[j * leading + i];
            for (std::size_t k = 0; k < s.k && i < s.m; ++k) {
                expected += a[s.a_transposed ? i * a_leading + k : k * a_leading + i] *
                            b[s.b_transposed ? k * b_leading + j : j * b_leading + k];
            }
            ASSERT_EQ(c[j * leading + i], expected) << i << " " << j;
        }
    }
}

TEST(MatrixProduct, AllTypesAndTransposes) {
    for (const bool a_transposed : {false, true}) {
        for (const bool b_transposed : {false, true}) {
            for (const bool accumulate : {false, true}) {
                expect_product<float>({65, 5, 33, a_transposed, b_transposed}, CUDA_R_32F, accumulate);
                expect_product<__half>({3, 70, 2, a_transposed, b_transposed}, CUDA_R_16F, accumulate);
                expect_product<__nv_bfloat16>({130, 4, 1, a_transposed, b_transposed}, CUDA_R_16BF, accumulate);
            }
        }
    }
}

TEST(MatrixProduct, TensorCoresSeeTenBits) {
    const float a = 1 + 0x1p-10F + 0x1p-11F, b = 1;
    float c = 0;
    const ColumnMajor left{&a, CUDA_R_32F, 1, 1, 1, false}, right{&b, CUDA_R_32F, 1, 1, 1, false};
    multiply(left, right, true, {}, {&c, CUDA_R_32F, 1, 1, 1, false});
    EXPECT_EQ(c, 1 + 0x1p-10F);
}

TEST(CublasLt, RefusesWhatItDoesNotKnow) {
    cublasLtMatmulDesc_t operation = nullptr;
    ASSERT_EQ(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), CUBLAS_STATUS_SUCCESS);
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const std::int64_t too_long = 1;
    const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const void* value, std::size_t size) {
        return cublasLtMatmulDescSetAttribute(operation, attribute, value, size);
    };
    EXPECT_EQ(set(CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(set(CUBLASLT_MATMUL_DESC_TRANSA, &too_long, sizeof too_long), CUBLAS_STATUS_INVALID_VALUE);
    EXPECT_EQ(set(CUBLASLT_MATMUL_DESC_EPILOGUE, &transposed, sizeof transposed), CUBLAS_STATUS_NOT_SUPPORTED);

    cublasLtMatmulPreference_t preference = nullptr;
    ASSERT_EQ(cublasLtMatmulPreferenceCreate(&preference), CUBLAS_STATUS_SUCCESS);
    const auto heuristic = [&](std::uint64_t b_columns) {  // a^T is 4 x 3, b 3 x b_columns, the result 4 x 2
        cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
        cublasLtMatrixLayoutCreate(&a, CUDA_R_32F, 3, 4, 3);
        cublasLtMatrixLayoutCreate(&b, CUDA_R_32F, 3, b_columns, 3);
        cublasLtMatrixLayoutCreate(&c, CUDA_R_32F, 4, 2, 4);
        cublasLtMatmulHeuristicResult_t found{};
        int count = 0;
        const cublasStatus_t status =
            cublasLtMatmulAlgoGetHeuristic(nullptr, operation, a, b, c, c, preference, 1, &found, &count);
        EXPECT_EQ(count, status == CUBLAS_STATUS_SUCCESS ? 1 : 0);
        for (const auto layout : {a, b, c}) cublasLtMatrixLayoutDestroy(layout);
        return status;
    };
    EXPECT_EQ(heuristic(2), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(heuristic(5), CUBLAS_STATUS_INVALID_VALUE);
    cublasLtMatmulPreferenceDestroy(preference);
    cublasLtMatmulDescDestroy(operation);
}

TEST(Cholesky, FactorsAndInverts) {
    constexpr std::size_t n = 37, leading = 40;
    std::vector<double> matrix(n * leading, NAN), inverse;
    for (std::size_t j = 0; j < n; ++j) {
        for (std::size_t i = j; i < n; ++i) {
            matrix[j * leading + i] = (i == j ? 2.0 : 0.0) + std::cos(static_cast<double>(i - j)) / 2;
        }
    }
    inverse = matrix;
    ASSERT_EQ(factor_lower(inverse.data(), n, leading), 0);
    ASSERT_EQ(invert_from_lower(inverse.data(), n, leading), 0);
    const auto at = [](const std::vector<double>& lower, std::size_t i, std::size_t j) {
        return lower[std::min(i, j) * leading + std::max(i, j)];
    };
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t j = 0; j < n; ++j) {
            double product = 0;
            for (std::size_t k = 0; k < n; ++k) product += at(matrix, i, k) * at(inverse, k, j);
            EXPECT_NEAR(product, i == j ? 1 : 0, 1e-12);
        }
    }
    matrix[5 * leading + 5] = -1;
    EXPECT_EQ(factor_lower(matrix.data(), n, leading), 6);
}

}  // namespace
}  // namespace espalier::emulation
