// SiLU gate, sums and the element-wise steps of scores and losses against float64.
#include "tests/support/expect.h"
#include "tests/support/matrix.h"
#include "tests/support/test_device.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

namespace espalier {
namespace {

using namespace support;

/// Around one thread's chunk of 16384 elements, and odd.
constexpr std::size_t sizes[] = {1, 2, 63, 64, 65, 130, 16383, 16384, 16385, 40001};

class ElementwiseTest : public testing::TestWithParam<std::size_t> {
  protected:
    std::unique_ptr<Device> device_ = make_test_device();
    std::size_t size_ = GetParam();
    Random random_{17};

    Tensor on_device(const std::vector<float>& values) { return upload(*device_, 1, values.size(), values); }
};
INSTANTIATE_TEST_SUITE_P(Sizes, ElementwiseTest, testing::ValuesIn(sizes),
                         [](const auto& info) { return std::to_string(info.param); });

TEST_P(ElementwiseTest, SiluMultiply) {
    std::vector<float> gate = random_.normals(size_, 10), up = random_.normals(size_);
    if (size_ > 64) {
        const float extremes[] = {0.0F, -0.0F, 88, -88, 89, -89, 200, -200, 1e30F, -1e30F};
        std::copy(std::begin(extremes), std::end(extremes), gate.begin());
    }
    const Tensor out = make_poisoned(*device_, 1, size_);
    device_->silu_multiply(on_device(gate), on_device(up), out);
    Bounded expected(size_);
    for (std::size_t i = 0; i < size_; ++i) {
        const auto g = static_cast<double>(gate[i]), u = static_cast<double>(up[i]);
        expected.values[i] = g / (1 + std::exp(-g)) * u;
        // 4 u for the exponential, 3 roundings. Below -88.3 the exponential is clamped at 2.2e38: |result| < |g u| /
        // 2e38.
        expected.bounds[i] = 8 * unit_roundoff * std::fabs(expected.values[i]) + std::fabs(g * u) / 2e38;
    }
    expect_within(download(*device_, out), expected.values, expected.bounds, "out");
}

TEST_P(ElementwiseTest, ScaleWhereNonzero) {
    std::vector<float> weight = random_.normals(size_);
    for (std::size_t i = 0; i < size_; i += 3) weight[i] = i % 2 == 0 ? 0.0F : -0.0F;
    const std::vector<float> x = random_.normals(size_);
    constexpr float scale = 0.37F;
    for (const bool masked : {true, false}) {
        const Tensor scaled = on_device(x);
        device_->scale_where_nonzero(masked ? on_device(weight) : Tensor(), scale, scaled);
        Bounded expected(size_);
        for (std::size_t i = 0; i < size_; ++i) {
            const bool zero = masked && weight[i] == 0.0F;
            expected.values[i] = zero ? 0 : static_cast<double>(scale) * static_cast<double>(x[i]);
            expected.bounds[i] = unit_roundoff * std::fabs(expected.values[i]);
        }
        expect_within(download(*device_, scaled), expected.values, expected.bounds, "x");
    }
}

TEST_P(ElementwiseTest, SiluMultiplyBackward) {
    const std::vector<float> gate = random_.normals(size_, 5), up = random_.normals(size_),
                             dout = random_.normals(size_);
    const Tensor gate_device = on_device(gate), up_device = on_device(up);
    device_->silu_multiply_backward(on_device(dout), gate_device, up_device);
    Bounded dgate(size_), dup(size_);
    for (std::size_t i = 0; i < size_; ++i) {
        const auto g = static_cast<double>(gate[i]), u = static_cast<double>(up[i]), d = static_cast<double>(dout[i]);
        const double sigmoid = 1 / (1 + std::exp(-g));
        dgate.values[i] = d * u * sigmoid * (1 + g * (1 - sigmoid));
        dup.values[i] = d * g * sigmoid;
        // The sigmoid errs by 7 u relatively; 1 - sigmoid carries that absolutely and is multiplied by g.
        dgate.bounds[i] = 16 * unit_roundoff * std::fabs(d * u) * sigmoid * (1 + std::fabs(g));
        dup.bounds[i] = 10 * unit_roundoff * std::fabs(dup.values[i]);
    }
    expect_within(download(*device_, gate_device), dgate.values, dgate.bounds, "dgate");
    expect_within(download(*device_, up_device), dup.values, dup.bounds, "dup");
}

TEST_P(ElementwiseTest, Add) {
    const std::vector<float> x = random_.normals(size_), y = random_.normals(size_);
    const Tensor sum = on_device(y);
    device_->add(on_device(x), sum);
    const std::vector<float> found = download(*device_, sum);
    for (std::size_t i = 0; i < size_; ++i) ASSERT_EQ(found[i], x[i] + y[i]);
}

TEST_P(ElementwiseTest, SquareAccumulate) {
    const std::vector<float> x = random_.normals(size_), start = random_.normals(size_);
    const Tensor sum = on_device(start);
    device_->square_accumulate(on_device(x), sum);
    Bounded expected(size_);
    for (std::size_t i = 0; i < size_; ++i) {
        const auto square = static_cast<double>(x[i]) * static_cast<double>(x[i]);
        expected.values[i] = static_cast<double>(start[i]) + square;
        expected.bounds[i] = unit_roundoff * (square + std::fabs(expected.values[i]) * (1 + unit_roundoff));
    }
    expect_within(download(*device_, sum), expected.values, expected.bounds, "sum");
}

TEST_P(ElementwiseTest, ScaledSquareRoot) {
    std::vector<float> x = random_.normals(size_, 100);
    for (float& value : x) value = std::fabs(value);
    x[0] = 0;
    const Tensor values = on_device(x);
    device_->scaled_square_root(1.0F / 128, values);
    const std::vector<float> found = download(*device_, values);
    // The scale is a power of two: the product is exact and the root correctly rounded.
    for (std::size_t i = 0; i < size_; ++i) ASSERT_EQ(found[i], std::sqrt(x[i] / 128));
}

TEST_P(ElementwiseTest, FrobeniusDirection) {
    const std::vector<float> y = random_.normals(size_, 1e-3);
    const Tensor direction = make_poisoned(*device_, 1, size_);
    frobenius_direction_of(*device_, on_device(y), direction);
    double square = 0;
    for (const float value : y) square += static_cast<double>(value) * static_cast<double>(value);
    Bounded expected(size_);
    for (std::size_t i = 0; i < size_; ++i) {
        expected.values[i] = static_cast<double>(y[i]) / std::sqrt(square);
        expected.bounds[i] =
            2.1 * unit_roundoff * std::fabs(expected.values[i]);  // the norm's and the product's rounding
    }
    expect_within(download(*device_, direction), expected.values, expected.bounds, "direction");
}

TEST_P(ElementwiseTest, FrobeniusDirectionOfZeroIsZero) {
    const Tensor direction = make_poisoned(*device_, 1, size_);
    frobenius_direction_of(*device_, on_device(std::vector<float>(size_, 0.0F)), direction);
    EXPECT_EQ(download(*device_, direction), std::vector<float>(size_, 0.0F));
}

TEST_P(ElementwiseTest, ConvertAndRoundAreNearestEven) {
    const std::vector<float> x = random_.normals(size_, 1000);
    for (const DType dtype : {DType::f16, DType::bf16}) {
        std::vector<float> expected(size_);
        for (std::size_t i = 0; i < size_; ++i) {
            expected[i] =
                dtype == DType::bf16 ? float_from_bf16(bf16_from_float(x[i])) : float_from_f16(f16_from_float(x[i]));
        }
        const Tensor stored = device_->make_tensor(dtype, 1, size_, "test"), back = make_poisoned(*device_, 1, size_);
        device_->convert(on_device(x), stored);
        device_->convert(stored, back);
        EXPECT_EQ(download(*device_, back), expected);
        const Tensor rounded = on_device(x);
        device_->round_to(dtype, rounded);
        EXPECT_EQ(download(*device_, rounded), expected);
        // Same dtype copies, bit for bit.
        const Tensor copy = device_->make_tensor(dtype, 1, size_, "test");
        device_->copy(stored, copy);
        EXPECT_EQ(download_bytes(*device_, copy), download_bytes(*device_, stored));
    }
    const Tensor same = make_poisoned(*device_, 1, size_), unrounded = on_device(x);
    device_->convert(on_device(x), same);
    device_->round_to(DType::f32, unrounded);
    EXPECT_EQ(download(*device_, same), x);
    EXPECT_EQ(download(*device_, unrounded), x);
}

TEST(Convert, SameSixteenBitTypeCopies) {
    const auto device = make_test_device();
    for (const DType dtype : {DType::f16, DType::bf16}) {
        const std::vector<std::uint16_t> bits = {0x0000, 0x8000, 0x3c00, 0x7f81, 0xffff, 0x0001};
        const Tensor source = device->make_tensor(dtype, 2, 3, "test"),
                     destination = device->make_tensor(dtype, 2, 3, "test");
        device->copy_from_host(bits.data(), source);
        device->convert(source, destination);
        EXPECT_EQ(download_bytes(*device, destination), download_bytes(*device, source)) << name_of(dtype);
    }
}

TEST(AddBias, EveryRow) {
    const auto device = make_test_device();
    Random random(3);
    for (const auto& [rows, columns] : {std::pair<std::size_t, std::size_t>{1, 1}, {65, 97}, {2, 20000}, {9000, 4}}) {
        const std::vector<float> y = random.normals(rows * columns), bias = random.normals(columns);
        const Tensor sum = upload(*device, rows, columns, y);
        device->add_bias(upload(*device, 1, columns, bias), sum);
        const std::vector<float> found = download(*device, sum);
        for (std::size_t i = 0; i < found.size(); ++i) ASSERT_EQ(found[i], y[i] + bias[i % columns]);
    }
}

TEST(Elementwise, ShapeErrorsAreBugs) {
    const auto device = make_test_device();
    const Tensor a = make_poisoned(*device, 1, 3), b = make_poisoned(*device, 1, 4);
    expect_error(ExitStatus::bug, {"silu_multiply"}, [&] { device->silu_multiply(a, b, a); });
    expect_error(ExitStatus::bug, {"silu_multiply_backward"}, [&] { device->silu_multiply_backward(a, b, b); });
    expect_error(ExitStatus::bug, {"add"}, [&] { device->add(a, b); });
    expect_error(ExitStatus::bug, {"add_bias"}, [&] { device->add_bias(a, b); });
    expect_error(ExitStatus::bug, {"square_accumulate"}, [&] { device->square_accumulate(a, b); });
    expect_error(ExitStatus::bug, {"frobenius_direction"}, [&] { frobenius_direction_of(*device, a, b); });
    expect_error(ExitStatus::bug, {"convert"}, [&] { device->convert(a, b); });
    expect_error(ExitStatus::bug, {"copy"}, [&] { device->copy(a, b); });
}

}  // namespace
}  // namespace espalier
