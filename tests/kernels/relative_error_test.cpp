// Errors of tokens relative to their targets, and the gradient, against float64.
#include "kernels/device_numbers.h"
#include "tests/support/expect.h"
#include "tests/support/matrix.h"
#include "tests/support/test_device.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using namespace support;

TEST(RelativeErrorTest, EachRowIsRelativeToItsTarget) {
    const auto device = make_test_device();
    for (const auto& [rows, columns] : {std::pair<std::size_t, std::size_t>{1, 1}, {3, 255}, {130, 257}, {2, 4097}}) {
        Random random(rows + columns);
        Matrix target = Matrix::random(random, rows, columns), y = Matrix::random(random, rows, columns);
        for (std::size_t j = 0; j < columns; ++j) target.values[j] *= 1e4F;  // as the first token of many models
        double expected = 0;
        Bounded gradient(rows * columns);
        for (std::size_t i = 0; i < rows; ++i) {
            double energy = 0, error = 0;
            for (std::size_t j = 0; j < columns; ++j) {
                energy += target(i, j) * target(i, j);
                error += (y(i, j) - target(i, j)) * (y(i, j) - target(i, j));
            }
            expected += error / energy;
            for (std::size_t j = 0; j < columns; ++j) {
                const double value = 2 * (y(i, j) - target(i, j)) / energy;
                gradient.values[i * columns + j] = value;
                // The difference, the factor, their product.
                gradient.bounds[i * columns + j] = 4 * unit_roundoff * std::fabs(value);
            }
        }
        const Tensor values = upload(*device, rows, columns, y.values);
        const DeviceSums sum(*device, 1);
        device->relative_error_gradient(upload(*device, rows, columns, target.values), values, sum.at(0));
        EXPECT_NEAR(sum.read()[0], expected, 1e-12 * expected) << rows << " x " << columns;
        expect_within(download(*device, values), gradient.values, gradient.bounds, "gradient");
    }
}

TEST(RelativeErrorTest, ARowWithoutATargetCountsNothing) {
    const auto device = make_test_device();
    const Tensor y = upload(*device, 2, 2, std::vector<float>{1, 2, 3, 4});
    const DeviceSums sum(*device, 1);
    device->relative_error_gradient(upload(*device, 2, 2, std::vector<float>{0, 0, 0, 4}), y, sum.at(0));
    EXPECT_EQ(sum.read()[0], 9.0 / 16);
    EXPECT_EQ(download(*device, y), (std::vector<float>{0, 0, 0.375F, 0}));
}

}  // namespace
}  // namespace espalier
