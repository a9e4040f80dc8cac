// RMSNorm and its backward pass against float64.
#include "tests/support/expect.h"
#include "tests/support/matrix.h"
#include "tests/support/test_device.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using namespace support;

struct NormShape {
    std::size_t rows, columns;
};
constexpr NormShape norm_shapes[] = {{1, 1}, {2, 7}, {63, 64}, {64, 65}, {65, 96}, {130, 97}, {3, 4097}, {20000, 3}};

double mean_square(const Matrix& x, std::size_t row) {
    double sum = 0;
    for (std::size_t j = 0; j < x.columns; ++j) sum += x(row, j) * x(row, j);
    return sum / static_cast<double>(x.columns);
}

class RmsNormTest : public testing::TestWithParam<NormShape> {
  protected:
    std::unique_ptr<Device> device_ = make_test_device();
};
INSTANTIATE_TEST_SUITE_P(Shapes, RmsNormTest, testing::ValuesIn(norm_shapes), [](const auto& info) {
    return std::to_string(info.param.rows) + "x" + std::to_string(info.param.columns);
});

TEST_P(RmsNormTest, Forward) {
    const auto [rows, columns] = GetParam();
    Random random(1);
    const Matrix x = Matrix::random(random, rows, columns, 3), w = Matrix::random(random, 1, columns);
    const double epsilon = 0x1p-17;
    const Tensor y = make_poisoned(*device_, rows, columns), inverse = make_poisoned(*device_, 1, rows);
    device_->rms_norm(upload(*device_, rows, columns, x.values), upload(*device_, 1, columns, w.values),
                      static_cast<float>(epsilon), y, inverse);
    // The sum of squares errs by (n + 1) u relatively, its root by half of that; division by n, + epsilon, root and
    // reciprocal add 4 u, the two products of y another 2 u.
    const double relative = (static_cast<double>(columns + 1) / 2 + 4) * unit_roundoff;
    Bounded expected(rows * columns), expected_inverse(rows);
    for (std::size_t i = 0; i < rows; ++i) {
        const double scale = 1 / std::sqrt(mean_square(x, i) + epsilon);
        expected_inverse.values[i] = scale;
        expected_inverse.bounds[i] = scale * relative;
        for (std::size_t j = 0; j < columns; ++j) {
            expected.values[i * columns + j] = x(i, j) * scale * w(0, j);
            expected.bounds[i * columns + j] =
                std::fabs(expected.values[i * columns + j]) * (relative + 2 * unit_roundoff);
        }
    }
    expect_within(download(*device_, y), expected.values, expected.bounds, "y");
    expect_within(download(*device_, inverse), expected_inverse.values, expected_inverse.bounds, "inverse_rms");
}

TEST_P(RmsNormTest, Backward) {
    const auto [rows, columns] = GetParam();
    Random random(2);
    const Matrix x = Matrix::random(random, rows, columns, 3), w = Matrix::random(random, 1, columns),
                 dy = Matrix::random(random, rows, columns), start = Matrix::random(random, rows, columns);
    // The reference starts from the float32 inverse_rms that the kernel gets as well.
    std::vector<float> inverse(rows);
    for (std::size_t i = 0; i < rows; ++i) inverse[i] = static_cast<float>(1 / std::sqrt(mean_square(x, i) + 1e-5));
    const auto n = static_cast<double>(columns);
    for (const bool accumulate : {false, true}) {
        Bounded expected(rows * columns);
        for (std::size_t i = 0; i < rows; ++i) {
            const auto scale = static_cast<double>(inverse[i]);
            double dot = 0, dot_size = 0;
            for (std::size_t j = 0; j < columns; ++j) {
                dot += dy(i, j) * w(0, j) * x(i, j);
                dot_size += std::fabs(dy(i, j) * w(0, j) * x(i, j));
            }
            const double projection = dot * scale * scale / n;
            // Error of the dot product (n + 2) u times its terms' sizes; of the products after it 3 u.
            const double projection_bound =
                ((n + 2) * dot_size * scale * scale / n + 3 * std::fabs(projection)) * unit_roundoff;
            for (std::size_t j = 0; j < columns; ++j) {
                const double direct = dy(i, j) * w(0, j), through = x(i, j) * projection;
                const double before = accumulate ? start(i, j) : 0;
                double& value = expected.values[i * columns + j];
                value = before + scale * (direct - through);
                expected.bounds[i * columns + j] =
                    scale * (std::fabs(x(i, j)) * projection_bound +
                             4 * unit_roundoff * (std::fabs(direct) + std::fabs(through))) +
                    unit_roundoff * (std::fabs(before) + std::fabs(value));
            }
        }
        const Tensor dx =
            accumulate ? upload(*device_, rows, columns, start.values) : make_poisoned(*device_, rows, columns);
        const Tensor dy_device = upload(*device_, rows, columns, dy.values);
        const Tensor x_device = upload(*device_, rows, columns, x.values),
                     w_device = upload(*device_, 1, columns, w.values),
                     inverse_device = upload(*device_, 1, rows, inverse);
        device_->rms_norm_backward(x_device, w_device, inverse_device, dy_device, accumulate, dx);
        expect_within(download(*device_, dx), expected.values, expected.bounds, "dx");
        if (accumulate) continue;
        device_->rms_norm_backward(x_device, w_device, inverse_device, dy_device, false, dy_device);
        EXPECT_EQ(bits_of(download(*device_, dy_device)), bits_of(download(*device_, dx))) << "in place";
    }
}

TEST(RmsNormBackward, IsTheGradient) {
    // Central differences of sum dy * y in float64: error h^2 / 6 times a third derivative of order 1.
    Random random(3);
    const std::size_t rows = 3, columns = 11;
    const double epsilon = 1e-3, step = 1e-5;
    Matrix x = Matrix::random(random, rows, columns);
    const Matrix w = Matrix::random(random, 1, columns), dy = Matrix::random(random, rows, columns);
    const auto loss = [&](std::size_t row, std::size_t moved, double by) {
        std::vector<double> values(columns);
        double square = 0, sum = 0;
        for (std::size_t j = 0; j < columns; ++j) {
            values[j] = x(row, j) + (j == moved ? by : 0);
            square += values[j] * values[j];
        }
        const double scale = 1 / std::sqrt(square / static_cast<double>(columns) + epsilon);
        for (std::size_t j = 0; j < columns; ++j) sum += dy(row, j) * values[j] * scale * w(0, j);
        return sum;
    };
    const auto device = make_test_device();
    const Tensor x_device = upload(*device, rows, columns, x.values), w_device = upload(*device, 1, columns, w.values);
    const Tensor y = make_poisoned(*device, rows, columns), inverse = make_poisoned(*device, 1, rows),
                 dx = make_poisoned(*device, rows, columns);
    device->rms_norm(x_device, w_device, static_cast<float>(epsilon), y, inverse);
    device->rms_norm_backward(x_device, w_device, inverse, upload(*device, rows, columns, dy.values), false, dx);
    const std::vector<float> gradient = download(*device, dx);
    for (std::size_t i = 0; i < rows; ++i) {
        for (std::size_t j = 0; j < columns; ++j) {
            const double difference = (loss(i, j, step) - loss(i, j, -step)) / (2 * step);
            // float32: (n + 8) u on terms of order 1 to 10.
            EXPECT_NEAR(static_cast<double>(gradient[i * columns + j]), difference, 20 * unit_roundoff * 10);
        }
    }
}

TEST_P(RmsNormTest, GradientOfTheGain) {
    const auto [rows, columns] = GetParam();
    Random random(3);
    const Matrix x = Matrix::random(random, rows, columns, 3), dy = Matrix::random(random, rows, columns);
    const Matrix inverse = Matrix::random(random, 1, rows);
    const Tensor gradient = make_poisoned(*device_, 1, columns);
    device_->rms_norm_gain_gradient(upload(*device_, rows, columns, x.values),
                                    upload(*device_, 1, rows, inverse.values),
                                    upload(*device_, rows, columns, dy.values), gradient);
    Bounded expected(columns);
    for (std::size_t j = 0; j < columns; ++j) {
        double sizes = 0;
        for (std::size_t row = 0; row < rows; ++row) {
            const double term = dy(row, j) * x(row, j) * inverse(0, row);
            expected.values[j] += term;
            sizes += std::fabs(term);
        }
        // Two products, runs of 32 and as many additions as there are runs.
        expected.bounds[j] = (34 + static_cast<double>(rows) / 32 + 2) * unit_roundoff * sizes;
    }
    expect_within(download(*device_, gradient), expected.values, expected.bounds, "gradient");
}

}  // namespace
}  // namespace espalier
