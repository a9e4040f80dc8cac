// SparseGPT's inverse Gram factor by its defining identity, and its column sweep against a float64 sweep that updates
// all columns to the right at once, without column blocks.
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

/// x^T x of `samples` random rows whose columns have different sizes; columns in `dead` are zero.
Matrix random_gram(Random& random, std::size_t n, std::size_t samples, const std::vector<std::size_t>& dead = {}) {
    Matrix x = Matrix::random(random, samples, n);
    for (std::size_t j = 0; j < n; ++j) {
        const double scale = std::find(dead.begin(), dead.end(), j) != dead.end() ? 0 : random.uniform(0.2, 2);
        for (std::size_t i = 0; i < samples; ++i) x.values[i * n + j] *= static_cast<float>(scale);
    }
    Matrix gram{n, n, std::vector<float>(n * n)};
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t j = 0; j <= i; ++j) {
            double sum = 0;
            for (std::size_t s = 0; s < samples; ++s) sum += x(s, i) * x(s, j);
            gram.values[i * n + j] = gram.values[j * n + i] = static_cast<float>(sum);
        }
    }
    return gram;
}

/// gram + damping mean(diag) I with dead diagonals at 1, in float64.
std::vector<double> damped(const Matrix& gram, double damping) {
    const std::size_t n = gram.rows;
    std::vector<double> a(gram.values.begin(), gram.values.end());
    double trace = 0;
    for (std::size_t j = 0; j < n; ++j) {
        if (a[j * n + j] == 0) a[j * n + j] = 1;
        trace += a[j * n + j];
    }
    for (std::size_t j = 0; j < n; ++j) a[j * n + j] += damping * trace / static_cast<double>(n);
    return a;
}

/// With a place for the dead inputs that the test does not look at.
bool factor_in_place(Device& device, float damping, TensorView gram) {
    return device.factor_inverse_gram(damping, gram, device.make_tensor(DType::u8, 1, gram.rows, "test"));
}

TEST(FactorInverseGram, TransposedTimesItselfIsTheInverse) {
    const auto device = make_test_device();
    for (const std::size_t n : {1U, 2U, 7U, 64U, 65U, 130U}) {
        Random random(n);
        const std::vector<std::size_t> dead = n > 5 ? std::vector<std::size_t>{1, 5} : std::vector<std::size_t>{};
        const Matrix gram = random_gram(random, n, n / 2 + 1, dead);  // singular without damping
        const Tensor factor = upload(*device, n, n, gram.values);
        const Tensor marked = upload_bytes(*device, 1, n, std::vector<std::uint8_t>(n, 77));
        ASSERT_TRUE(device->factor_inverse_gram(0.01F, factor, marked));
        std::vector<std::uint8_t> expected_marks(n, 0);
        for (const std::size_t j : dead) expected_marks[j] = 1;
        EXPECT_EQ(download_bytes(*device, marked), expected_marks);
        const Matrix u{n, n, download(*device, factor)};
        const std::vector<double> a = damped(gram, static_cast<double>(0.01F));
        // U is rounded to float32: each product U^T U errs by 2 u |U|^T |U|, and A times that by 2 u |A| |U|^T |U|.
        for (std::size_t i = 0; i < n; ++i) {
            for (std::size_t j = 0; j < i; ++j) ASSERT_EQ(u(i, j), 0) << "below the diagonal";
            ASSERT_GT(u(i, i), 0);
        }
        std::vector<double> product(n * n), size(n * n);
        for (std::size_t k = 0; k < n; ++k) {
            for (std::size_t i = k; i < n; ++i) {
                for (std::size_t j = k; j < n; ++j) {
                    product[i * n + j] += u(k, i) * u(k, j);
                    size[i * n + j] += std::fabs(u(k, i) * u(k, j));
                }
            }
        }
        for (std::size_t i = 0; i < n; ++i) {
            for (std::size_t j = 0; j < n; ++j) {
                double identity = 0, bound = 0;
                for (std::size_t k = 0; k < n; ++k) {
                    identity += a[i * n + k] * product[k * n + j];
                    bound += std::fabs(a[i * n + k]) * size[k * n + j];
                }
                // 2.1 leaves room for float64's own errors (condition 1e3 times 1e-16).
                ASSERT_NEAR(identity, i == j ? 1 : 0, 2.1 * unit_roundoff * bound) << n << ": " << i << ", " << j;
            }
        }
    }
}

TEST(FactorInverseGram, IndefiniteIsRefusedAndUnchanged) {
    const auto device = make_test_device();
    const std::vector<std::vector<float>> indefinite = {{1, 2, 2, 1}, {-1, 0, 0, 1}, {1, 1, 1, 1}};
    for (const std::vector<float>& values : indefinite) {
        const Tensor gram = upload(*device, 2, 2, values);
        EXPECT_FALSE(factor_in_place(*device, 0, gram));
        EXPECT_EQ(download(*device, gram), values);
    }
    const Tensor damped_gram = upload(*device, 2, 2, indefinite[0]);
    EXPECT_TRUE(factor_in_place(*device, 10, damped_gram)) << "enough damping makes it definite";
}

TEST(FactorInverseGram, NanIsRefused) {
    const auto device = make_test_device();
    const float nan = std::numeric_limits<float>::quiet_NaN();
    EXPECT_FALSE(factor_in_place(*device, 0.01F, upload(*device, 2, 2, std::vector<float>{1, nan, nan, 1})));
}

struct SweepResult {
    std::size_t rows;
    std::vector<double> weight;
    std::vector<std::uint8_t> mask;
};

/// The definition: column by column, each error spread over everything to the right with row j of U. A mask that is not
/// `given` is chosen.
SweepResult direct_sweep(const Matrix& u, const std::vector<std::uint8_t>& dead, const PruningPattern& pattern,
                         const Matrix& weight, const std::vector<std::uint8_t>& given = {}) {
    const std::size_t n = weight.columns;
    const std::size_t block =
        pattern.structured() ? std::max<std::size_t>(1, 128 / pattern.group) * pattern.group : 128;
    SweepResult result{weight.rows,
                       {weight.values.begin(), weight.values.end()},
                       given.empty() ? std::vector<std::uint8_t>(weight.values.size(), 1) : given};
    for (std::size_t row = 0; row < weight.rows; ++row) {
        double* const w = result.weight.data() + row * n;
        std::uint8_t* const keep = result.mask.data() + row * n;
        for (std::size_t j = 0; j < n; ++j) w[j] = dead[j] != 0 ? 0 : w[j];
        const auto choose = [&](std::size_t first, std::size_t count, std::size_t remove) {
            if (!given.empty()) return;
            std::vector<std::size_t> order(count);
            std::iota(order.begin(), order.end(), first);
            std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
                return std::fabs(w[a]) / u(a, a) < std::fabs(w[b]) / u(b, b);
            });
            for (std::size_t i = 0; i < remove; ++i) keep[order[i]] = 0;
        };
        for (std::size_t j = 0; j < n; ++j) {
            if (pattern.structured() && j % pattern.group == 0) choose(j, pattern.group, pattern.group - pattern.keep);
            if (!pattern.structured() && j % block == 0) {
                const std::size_t end = std::min(n, j + block);
                choose(j, end - j, pattern.removed_per_row(end) - pattern.removed_per_row(j));
            }
            if (keep[j] != 0) continue;
            const double error = w[j] / u(j, j);
            w[j] = 0;
            for (std::size_t k = j + 1; k < n; ++k) w[k] -= error * u(j, k);
        }
    }
    return result;
}

void expect_swept(const std::vector<float>& found, const SweepResult& expected, const std::string& what) {
    const double columns = static_cast<double>(found.size()) / static_cast<double>(expected.rows);
    for (std::size_t i = 0; i < found.size(); ++i) {
        if (expected.mask[i] == 0) {
            ASSERT_EQ(bits_of({&found[i], 1})[0], 0U) << what << ": a removed weight is +0.0";
            continue;
        }
        // A weight collects up to n updates. Each rounds by u of its size, and passes on the errors of the weights
        // before it, damped by U_jk / U_jj < 1: n u of the largest weight, with a factor 4 for the passing on.
        ASSERT_NEAR(static_cast<double>(found[i]), expected.weight[i], 4 * (columns + 4) * unit_roundoff * 5)
            << what << ", element " << i;
    }
}

struct SweepCase {
    std::size_t rows, columns;
    PruningPattern pattern;
};
const SweepCase sweep_cases[] = {{1, 4, {2, 4, 0.5}},      {3, 128, {2, 4, 0.5}},   {70, 132, {2, 4, 0.5}},
                                 {5, 264, {4, 8, 0.5}},    {9, 264, {3, 8, 0.625}}, {4, 160, {20, 32, 0.375}},
                                 {65, 129, {0, 0, 0.5}},   {2, 300, {0, 0, 0.29}},  {3, 1, {0, 0, 0.5}},
                                 {6, 600, {100, 200, 0.5}}};

TEST(SparseGptSweep, EqualsTheDirectSweep) {
    const auto device = make_test_device();
    for (const auto& [rows, columns, pattern] : sweep_cases) {
        Random random(columns + rows);
        const std::vector<std::size_t> dead_columns =
            columns > 8 ? std::vector<std::size_t>{2, 7} : std::vector<std::size_t>{};
        const Tensor factor =
            upload(*device, columns, columns, random_gram(random, columns, 2 * columns, dead_columns).values);
        ASSERT_TRUE(factor_in_place(*device, 0.01F, factor));
        const Matrix u{columns, columns, download(*device, factor)};
        std::vector<std::uint8_t> dead(columns, 0);
        for (const std::size_t j : dead_columns) dead[j] = 1;
        const Matrix start = Matrix::random(random, rows, columns);
        const Tensor weight = upload(*device, rows, columns, start.values);
        const Tensor mask = upload_bytes(*device, rows, columns, std::vector<std::uint8_t>(rows * columns, 77));
        const Tensor dead_inputs = upload_bytes(*device, 1, columns, dead);
        EXPECT_EQ(sweep_counting(*device, factor, dead_inputs, pattern, weight, mask), 0U);

        const SweepResult expected = direct_sweep(u, dead, pattern, start);
        const std::string what = pattern.name() + " of " + std::to_string(rows) + "x" + std::to_string(columns);
        // Random scores lie further apart than the sweep's rounding errors, so the decisions are the same.
        EXPECT_TRUE(download_bytes(*device, mask) == expected.mask) << what;
        expect_swept(download(*device, weight), expected, what);

        // Any mask may be given; that of the sweep's own choice gives its bits.
        std::vector<std::uint8_t> given(rows * columns);
        for (std::uint8_t& keep : given) keep = random.uniform(0, 1) < 0.6 ? 1 : 0;
        for (const std::vector<std::uint8_t>& kept : {given, expected.mask}) {
            const Tensor again = upload(*device, rows, columns, start.values);
            const Tensor fixed = upload_bytes(*device, rows, columns, kept);
            EXPECT_EQ(sweep_counting(*device, factor, dead_inputs, pattern, again, fixed, SweepMask::given), 0U);
            EXPECT_TRUE(download_bytes(*device, fixed) == kept) << what;
            expect_swept(download(*device, again), direct_sweep(u, dead, pattern, start, kept), what + ", mask given");
            if (kept == expected.mask) {
                EXPECT_EQ(bits_of(download(*device, again)), bits_of(download(*device, weight))) << what;
            }
        }
    }
}

TEST(SparseGptSweep, EveryRowIsExact) {
    const auto device = make_test_device();
    Random random(9);
    const std::size_t rows = 66, columns = 300;
    const Tensor factor = upload(*device, columns, columns, random_gram(random, columns, 400).values);
    ASSERT_TRUE(factor_in_place(*device, 0.01F, factor));
    for (const double sparsity : {0.1, 0.333, 0.5, 0.77}) {
        const PruningPattern pattern{0, 0, sparsity};
        const Tensor weight = upload(*device, rows, columns, random.normals(rows * columns));
        const Tensor mask = device->make_tensor(DType::u8, rows, columns, "test");
        sweep_counting(*device, factor, upload_bytes(*device, 1, columns, std::vector<std::uint8_t>(columns, 0)),
                       pattern, weight, mask);
        const std::vector<std::uint8_t> kept = download_bytes(*device, mask);
        for (std::size_t row = 0; row < rows; ++row) {
            const auto begin = kept.begin() + static_cast<std::ptrdiff_t>(row * columns);
            ASSERT_EQ(static_cast<std::size_t>(std::count(begin, begin + static_cast<std::ptrdiff_t>(columns), 0)),
                      pattern.removed_per_row(columns));
        }
    }
}

TEST(SparseGptSweep, ReducesTheOutputErrorBelowMaskingAlone) {
    // What the error feedback is for: with the same mask, ||(W - W0) x|| is smaller than with zeros alone.
    const auto device = make_test_device();
    Random random(10);
    const std::size_t rows = 16, n = 64;
    const Matrix gram = random_gram(random, n, 256), start = Matrix::random(random, rows, n);
    const Tensor factor = upload(*device, n, n, gram.values), weight = upload(*device, rows, n, start.values);
    ASSERT_TRUE(factor_in_place(*device, 0.01F, factor));
    const Tensor mask = device->make_tensor(DType::u8, rows, n, "test");
    sweep_counting(*device, factor, upload_bytes(*device, 1, n, std::vector<std::uint8_t>(n, 0)), {2, 4, 0.5}, weight,
                   mask);
    const std::vector<float> swept = download(*device, weight);
    const std::vector<std::uint8_t> keep = download_bytes(*device, mask);
    const auto output_error = [&](const auto& value_of) {
        double total = 0;
        for (std::size_t row = 0; row < rows; ++row) {
            for (std::size_t i = 0; i < n; ++i) {
                for (std::size_t j = 0; j < n; ++j) {
                    total +=
                        (value_of(row * n + i) - start(row, i)) * gram(i, j) * (value_of(row * n + j) - start(row, j));
                }
            }
        }
        return total;
    };
    const double with_feedback = output_error([&](std::size_t i) { return static_cast<double>(swept[i]); });
    const double masked =
        output_error([&](std::size_t i) { return keep[i] != 0 ? static_cast<double>(start.values[i]) : 0; });
    EXPECT_LT(with_feedback, masked);
}

TEST(SparseGptSweep, AGroupThatDoesNotDivideTheWidthIsABug) {
    const auto device = make_test_device();
    std::vector<float> identity(36, 0.0F);
    for (std::size_t j = 0; j < 6; ++j) identity[j * 7] = 1;
    const Tensor factor = upload(*device, 6, 6, identity);
    // Only the first of 4 rows is meant: whatever is read or written beyond it stays inside these tensors.
    const Tensor weight = upload(*device, 4, 6, std::vector<float>(24, 1.0F)),
                 mask = device->make_tensor(DType::u8, 4, 6, "test");
    const Tensor dead = upload_bytes(*device, 1, 6, std::vector<std::uint8_t>(6, 0));
    expect_error(ExitStatus::bug, {"internal error"}, [&] {
        static_cast<void>(sweep_counting(*device, factor, dead, {2, 4, 0.5}, weight.view().row_range(0, 1),
                                         mask.view().row_range(0, 1)));
    });
}

TEST(SparseGptSweep, CountsNonFiniteScores) {
    const auto device = make_test_device();
    const std::vector<float> identity = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1};
    const Tensor factor = upload(*device, 4, 4, identity), mask = device->make_tensor(DType::u8, 1, 4, "test");
    const Tensor dead = upload_bytes(*device, 1, 4, std::vector<std::uint8_t>(4, 0));
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), 1e30F}) {
        const Tensor weight = upload(*device, 1, 4, std::vector<float>{1, bad, 2, 3});
        EXPECT_EQ(sweep_counting(*device, factor, dead, {2, 4, 0.5}, weight, mask), 1U);
        EXPECT_EQ(sweep_counting(*device, factor, dead, {0, 0, 0.5}, weight, mask), 1U);
    }
}

}  // namespace
}  // namespace espalier
