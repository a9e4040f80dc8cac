// Sums over tokens or whole tensors against float64 (or long double, where the kernel itself sums in float64).
#include "kernels/device_numbers.h"
#include "tests/support/expect.h"
#include "tests/support/matrix.h"
#include "tests/support/test_device.h"

#include <gtest/gtest.h>

#include <limits>

namespace espalier {
namespace {

using namespace support;

TEST(ColumnSquareSums, RunsOf32KeepTheErrorSmall) {
    const auto device = make_test_device();
    for (const auto& [rows, columns] :
         {std::pair<std::size_t, std::size_t>{1, 1}, {2, 255}, {31, 256}, {32, 257}, {33, 3}, {130, 600}, {5000, 5}}) {
        Random random(rows);
        const Matrix x = Matrix::random(random, rows, columns);
        const Tensor sums = make_poisoned(*device, 1, columns);
        device->column_square_sums(upload(*device, rows, columns, x.values), sums);
        Bounded expected(columns);
        for (std::size_t j = 0; j < columns; ++j) {
            for (std::size_t i = 0; i < rows; ++i) expected.values[j] += x(i, j) * x(i, j);
            // At most 32 additions inside a run and one for each run, plus the product: not T of them.
            expected.bounds[j] = (33 + std::ceil(static_cast<double>(rows) / 32)) * unit_roundoff * expected.values[j];
        }
        expect_within(download(*device, sums), expected.values, expected.bounds,
                      std::to_string(rows) + "x" + std::to_string(columns));
    }
}

class WholeTensor : public testing::TestWithParam<std::size_t> {
  protected:
    std::unique_ptr<Device> device_ = make_test_device();
    std::size_t size_ = GetParam();
    Random random_{23};
    std::vector<float> x_ = random_.normals(size_, 3), y_ = random_.normals(size_, 3);

    Tensor on_device(const std::vector<float>& values) { return upload(*device_, 1, values.size(), values); }
    /// A float64 sum of n non-negative terms errs by at most n 2^-53 of itself.
    void expect_sum(double found, long double expected) {
        EXPECT_NEAR(found, static_cast<double>(expected),
                    static_cast<double>(expected) * static_cast<double>(size_ + 2) * 0x1p-53);
    }
};
INSTANTIATE_TEST_SUITE_P(Sizes, WholeTensor, testing::Values<std::size_t>(1, 2, 63, 64, 65, 130, 16384, 16385, 100003),
                         [](const auto& info) { return std::to_string(info.param); });

TEST_P(WholeTensor, SquareSum) {
    long double sum = 0;
    for (const float value : x_) sum += static_cast<long double>(value) * value;
    expect_sum(square_sum_of(*device_, on_device(x_)), sum);
}

TEST_P(WholeTensor, SquaredError) {
    long double sum = 0;
    for (std::size_t i = 0; i < size_; ++i) {
        const long double difference = static_cast<long double>(x_[i]) - y_[i];
        sum += difference * difference;
    }
    expect_sum(squared_error_of(*device_, on_device(x_), on_device(y_)), sum);
}

TEST_P(WholeTensor, SquaredErrorGradient) {
    const Tensor y = on_device(x_);
    device_->squared_error_gradient(on_device(y_), y);
    const std::vector<float> gradient = download(*device_, y);
    for (std::size_t i = 0; i < size_; ++i) {
        const float difference = x_[i] - y_[i];
        ASSERT_EQ(gradient[i], 2 * difference);
    }
}

TEST_P(WholeTensor, CountNonfinite) {
    EXPECT_EQ(nonfinite_in(*device_, on_device(x_)), 0U);
    std::vector<float> values = x_;
    std::size_t expected = 0;
    const float infinity = std::numeric_limits<float>::infinity();
    for (std::size_t i = 0; i < size_; i += 5) {
        values[i] = i % 3 == 0 ? infinity : i % 3 == 1 ? -infinity : std::numeric_limits<float>::quiet_NaN();
        ++expected;
    }
    values.back() = std::numeric_limits<float>::max();
    if ((size_ - 1) % 5 == 0) --expected;
    EXPECT_EQ(nonfinite_in(*device_, on_device(values)), expected);
}

TEST_P(WholeTensor, CountZeros) {
    std::vector<float> values = random_.normals(size_);
    std::size_t expected = 0;
    for (std::size_t i = 0; i < size_; i += 5, ++expected) values[i] = i % 2 == 0 ? 0.0F : -0.0F;
    const DeviceCounters zeros(*device_, 1);
    device_->count_zeros(upload(*device_, 1, size_, values), zeros.at(0));
    EXPECT_EQ(zeros.read()[0], expected);
}

TEST(ColumnSumRoots, AreThoseOfFloat64SumsInRowOrder) {
    const auto device = make_test_device();
    for (const auto& [rows, columns] :
         {std::pair<std::size_t, std::size_t>{1, 1}, {3, 255}, {16, 257}, {33, 64}, {128, 600}}) {
        Random random(rows);
        std::vector<float> values = random.normals(rows * columns);
        for (float& value : values) value *= value;
        const Tensor roots = make_poisoned(*device, 1, columns);
        device->column_sum_roots(upload(*device, rows, columns, values), 1.0 / 7, roots);
        const std::vector<float> found = download(*device, roots);
        for (std::size_t j = 0; j < columns; ++j) {
            double sum = 0;
            for (std::size_t row = 0; row < rows; ++row) sum += static_cast<double>(values[row * columns + j]);
            ASSERT_EQ(found[j], static_cast<float>(std::sqrt(sum * (1.0 / 7)))) << rows << " x " << columns;
        }
    }
}

TEST_P(WholeTensor, CountUnchanged) {
    std::vector<float> now = x_;
    std::vector<std::uint8_t> mask(size_);
    std::uint64_t kept = 0, unchanged = 0;
    for (std::size_t i = 0; i < size_; ++i) {
        if (random_.below(3) == 0) now[i] += 1;
        mask[i] = static_cast<std::uint8_t>(random_.below(2));
        kept += mask[i];
        unchanged += mask[i] != 0 && now[i] == x_[i] ? 1U : 0U;
    }
    const Tensor mask_on_device = device_->make_tensor(DType::u8, 1, size_, "test");
    device_->copy_from_host(mask.data(), mask_on_device);
    const DeviceCounters counters(*device_, 2);
    device_->count_unchanged(on_device(now), on_device(x_), mask_on_device, counters.at(0), counters.at(1));
    EXPECT_EQ(counters.read(), (std::vector<std::uint64_t>{kept, unchanged}));
}

TEST(WholeTensorSums, HugeAndTinyValuesDoNotOverflowFloat32) {
    const auto device = make_test_device();
    const std::vector<float> values(1000, 1e30F);
    EXPECT_NEAR(square_sum_of(*device, upload(*device, 10, 100, values)) / 1e63, 1, 1e-6);
}

TEST(WholeTensorSums, ShapeErrorsAreBugs) {
    const auto device = make_test_device();
    const Tensor a = make_poisoned(*device, 1, 3), b = make_poisoned(*device, 1, 4);
    expect_error(ExitStatus::bug, {"squared_error"}, [&] { static_cast<void>(squared_error_of(*device, a, b)); });
    expect_error(ExitStatus::bug, {"squared_error_gradient"}, [&] { device->squared_error_gradient(a, b); });
    expect_error(ExitStatus::bug, {"column_square_sums"}, [&] { device->column_square_sums(a, b); });
}

}  // namespace
}  // namespace espalier
