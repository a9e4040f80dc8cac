// Matrix products against float64. A float32 sum of n products, in any order and with or without fused multiply-add,
// errs by at most (n + 1) u sum |a b| (Higham, Accuracy and Stability, §3.1; u = 2^-24).
#include "tests/support/expect.h"
#include "tests/support/matrix.h"
#include "tests/support/test_device.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <mutex>

namespace espalier {
namespace {

using namespace support;

struct LinearShape {
    std::size_t tokens, in, out;
};
/// Around the panels' widths (96, 192) and the gradient panels' rows (16 … 128), and odd sizes.
constexpr LinearShape linear_shapes[] = {{1, 1, 1},     {2, 3, 5},     {63, 95, 96}, {64, 96, 97},  {65, 97, 95},
                                         {130, 7, 200}, {1, 300, 130}, {17, 129, 1}, {5, 2049, 33}, {2, 9, 2050}};

/// sum_k left(i, k) right(k, j), starting from `start` when it is given.
template <typename Left, typename Right>
Bounded product(std::size_t rows, std::size_t columns, std::size_t length, const Left& left, const Right& right,
                const std::vector<float>* start) {
    Bounded result(rows * columns);
    for (std::size_t i = 0; i < rows; ++i) {
        for (std::size_t j = 0; j < columns; ++j) {
            double sum = start == nullptr ? 0 : static_cast<double>((*start)[i * columns + j]), size = std::fabs(sum);
            for (std::size_t k = 0; k < length; ++k) {
                const double term = left(i, k) * right(k, j);
                sum += term;
                size += std::fabs(term);
            }
            result.values[i * columns + j] = sum;
            result.bounds[i * columns + j] = static_cast<double>(length + 2) * unit_roundoff * size;
        }
    }
    return result;
}

class LinearTest : public testing::TestWithParam<LinearShape> {
  protected:
    std::unique_ptr<Device> device_ = make_test_device();
};
INSTANTIATE_TEST_SUITE_P(Shapes, LinearTest, testing::ValuesIn(linear_shapes), [](const auto& info) {
    return "T" + std::to_string(info.param.tokens) + "_in" + std::to_string(info.param.in) + "_out" +
           std::to_string(info.param.out);
});

TEST_P(LinearTest, Forward) {
    const auto [tokens, in, out] = GetParam();
    Random random(1);
    const Matrix x = Matrix::random(random, tokens, in), w = Matrix::random(random, out, in),
                 start = Matrix::random(random, tokens, out);
    const Tensor x_device = upload(*device_, tokens, in, x.values), w_device = upload(*device_, out, in, w.values);
    for (const bool accumulate : {false, true}) {
        // Without accumulate whatever is in y, even NaN, must not matter.
        const Tensor y =
            accumulate ? upload(*device_, tokens, out, start.values) : make_poisoned(*device_, tokens, out);
        const double flops = device_->flops();
        device_->linear(x_device, w_device, accumulate ? y.view() : TensorView{}, y);
        EXPECT_EQ(device_->flops() - flops, 2.0 * static_cast<double>(tokens * in * out));
        const Bounded expected = product(
            tokens, out, in, x, [&](std::size_t k, std::size_t j) { return w(j, k); },
            accumulate ? &start.values : nullptr);
        expect_within(download(*device_, y), expected.values, expected.bounds, "y");
    }
}

TEST_P(LinearTest, InputGradient) {
    const auto [tokens, in, out] = GetParam();
    Random random(2);
    const Matrix dy = Matrix::random(random, tokens, out), w = Matrix::random(random, out, in),
                 start = Matrix::random(random, tokens, in);
    const Tensor dy_device = upload(*device_, tokens, out, dy.values), w_device = upload(*device_, out, in, w.values);
    for (const bool accumulate : {false, true}) {
        const Tensor dx = accumulate ? upload(*device_, tokens, in, start.values) : make_poisoned(*device_, tokens, in);
        device_->linear_input_gradient(dy_device, w_device, accumulate, dx);
        const Bounded expected = product(tokens, in, out, dy, w, accumulate ? &start.values : nullptr);
        expect_within(download(*device_, dx), expected.values, expected.bounds, "dx");
    }
}

TEST_P(LinearTest, WeightGradientPanelsTileTheMatrix) {
    const auto [tokens, in, out] = GetParam();
    Random random(3);
    const Matrix dy = Matrix::random(random, tokens, out), x = Matrix::random(random, tokens, in);
    const Tensor dy_device = upload(*device_, tokens, out, dy.values),
                 x_device = upload(*device_, tokens, in, x.values);
    std::vector<float> gradient(out * in);
    std::vector<int> visits(out, 0);
    std::mutex mutex;
    device_->linear_weight_gradient(dy_device, x_device, [&](std::size_t row_begin, TensorView panel) {
        const std::vector<float> rows = download(*device_, panel);
        const std::lock_guard lock(mutex);
        ASSERT_EQ(panel.columns, in);
        ASSERT_LE(row_begin + panel.rows, out);
        for (std::size_t row = row_begin; row < row_begin + panel.rows; ++row) ++visits[row];
        std::copy(rows.begin(), rows.end(), gradient.begin() + static_cast<std::ptrdiff_t>(row_begin * in));
    });
    EXPECT_EQ(visits, std::vector<int>(out, 1));
    const Bounded expected = product(
        out, in, tokens, [&](std::size_t i, std::size_t t) { return dy(t, i); }, x, nullptr);
    expect_within(gradient, expected.values, expected.bounds, "dW");
}

TEST_P(LinearTest, GramAccumulatesInTheUpperTriangle) {
    const auto [tokens, in, out] = GetParam();
    if (in > 512) return;  // the reference would take most of the test's time
    static_cast<void>(out);
    Random random(4);
    const Matrix x = Matrix::random(random, tokens, in), start = Matrix::random(random, in, in);
    const Tensor x_device = upload(*device_, tokens, in, x.values), gram = upload(*device_, in, in, start.values);
    device_->accumulate_gram(x_device, gram);
    const Bounded expected = product(
        in, in, tokens, [&](std::size_t i, std::size_t t) { return x(t, i); }, x, &start.values);
    std::vector<float> found = download(*device_, gram);
    for (std::size_t i = 0; i < in; ++i) {  // below the diagonal anything may stand
        for (std::size_t j = 0; j < i; ++j) found[i * in + j] = static_cast<float>(expected.values[i * in + j]);
    }
    expect_within(found, expected.values, expected.bounds, "gram");
}

TEST(Linear, ExactForSmallIntegers) {
    // Products and sums of small integers are exact in float32: any order gives the same bits.
    const auto device = make_test_device();
    Random random(5);
    const std::size_t tokens = 65, in = 130, out = 100;
    Matrix x{tokens, in, std::vector<float>(tokens * in)}, w{out, in, std::vector<float>(out * in)};
    for (float& value : x.values) value = static_cast<float>(random.below(17)) - 8;
    for (float& value : w.values) value = static_cast<float>(random.below(17)) - 8;
    const Tensor y = make_poisoned(*device, tokens, out);
    device->linear(upload(*device, tokens, in, x.values), upload(*device, out, in, w.values), {}, y);
    const std::vector<float> values = download(*device, y);
    for (std::size_t t = 0; t < tokens; ++t) {
        for (std::size_t j = 0; j < out; ++j) {
            double sum = 0;
            for (std::size_t k = 0; k < in; ++k) sum += x(t, k) * w(j, k);
            ASSERT_EQ(static_cast<double>(values[t * out + j]), sum);
        }
    }
}

TEST(Linear, ConsumersMayUseTheDeviceInsideAndTheirExceptionsArrive) {
    const auto device = make_test_device(4);
    Random random(6);
    const std::size_t tokens = 9, in = 64, out = 1000;
    const Tensor dy = upload(*device, tokens, out, random.normals(tokens * out)),
                 x = upload(*device, tokens, in, random.normals(tokens * in));
    const Tensor sum = upload(*device, out, in, std::vector<float>(out * in, 0.0F));
    device->linear_weight_gradient(dy, x, [&](std::size_t row_begin, TensorView panel) {
        device->square_accumulate(panel, sum.view().row_range(row_begin, row_begin + panel.rows));
    });
    EXPECT_GT(square_sum_of(*device, sum), 0);
    expect_input_error({"the consumer"}, [&] {
        device->linear_weight_gradient(dy, x, [](std::size_t, TensorView) { throw InputError("the consumer"); });
    });
}

TEST(Linear, ShapeErrorsAreBugs) {
    const auto device = make_test_device();
    const Tensor a = make_poisoned(*device, 2, 3), b = make_poisoned(*device, 4, 5), c = make_poisoned(*device, 2, 4);
    expect_error(ExitStatus::bug, {"linear"}, [&] { device->linear(a, b, {}, c); });
    expect_error(ExitStatus::bug, {"linear_input_gradient"}, [&] { device->linear_input_gradient(a, b, false, c); });
    expect_error(ExitStatus::bug, {"linear_weight_gradient"},
                 [&] { device->linear_weight_gradient(a, b, [](std::size_t, TensorView) {}); });
    expect_error(ExitStatus::bug, {"accumulate_gram"}, [&] { device->accumulate_gram(a, b); });
}

TEST_P(LinearTest, LowRankUpdate) {
    const auto [rank, in, out] = GetParam();
    Random random(7);
    const Matrix a = Matrix::random(random, rank, in), b = Matrix::random(random, out, rank);
    std::vector<float> base = random.normals(out * in);
    for (std::size_t i = 0; i < base.size(); i += 3) base[i] = i % 2 == 0 ? 0.0F : -0.0F;
    const Tensor a_device = upload(*device_, rank, in, a.values), b_device = upload(*device_, out, rank, b.values),
                 base_device = upload(*device_, out, in, base);
    constexpr float scale = 0.37F;
    Bounded expected = product(out, in, rank, b, a, nullptr);
    for (std::size_t i = 0; i < base.size(); ++i) {
        const double update = static_cast<double>(scale) * expected.values[i], w = static_cast<double>(base[i]);
        expected.bounds[i] = static_cast<double>(scale) * expected.bounds[i] +
                             2 * unit_roundoff * (std::fabs(w + update) + std::fabs(update));
        expected.values[i] = w + update;
    }
    for (const ZeroWeights zeros : {ZeroWeights::updated, ZeroWeights::kept}) {
        const Tensor weight = make_poisoned(*device_, out, in);
        device_->add_low_rank_update(base_device, a_device, b_device, scale, zeros, weight);
        for (std::size_t i = 0; i < base.size() && zeros == ZeroWeights::kept; i += 3)
            expected.values[i] = expected.bounds[i] = 0;
        const std::vector<float> found = download(*device_, weight);
        expect_within(found, expected.values, expected.bounds, "weight");
        for (std::size_t i = 0; i < found.size() && zeros == ZeroWeights::kept; i += 3)
            ASSERT_EQ(bits_of({&found[i], 1})[0], 0U) << "+0.0 at " << i;
        const Tensor in_place = upload(*device_, out, in, base);
        device_->add_low_rank_update(in_place, a_device, b_device, scale, zeros, in_place);
        EXPECT_EQ(bits_of(download(*device_, in_place)), bits_of(found));
    }
}

}  // namespace
}  // namespace espalier
