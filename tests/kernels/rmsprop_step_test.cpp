// One RMSprop step: v <- decay v + (1 - decay) g^2; w <- w - rate g / (sqrt(v) + epsilon).
#include "tests/support/expect.h"
#include "tests/support/matrix.h"
#include "tests/support/test_device.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace espalier {
namespace {

using namespace support;

const TensorView no_mask{};

TEST(RmspropStep, FirstStepIsTenTimesTheRateAgainstTheGradientsSign) {
    const auto device = make_test_device();
    Random random(1);
    std::vector<float> gradient = random.normals(1001);
    for (float& g : gradient) g = std::copysign(std::max(std::fabs(g), 0.01F), g);
    const Tensor v = upload(*device, 1, 1001, std::vector<float>(1001, 0.0F)),
                 w = upload(*device, 1, 1001, std::vector<float>(1001, 0.0F));
    const float rate = 3e-7F;
    rmsprop_step(*device, rate, {}, upload(*device, 1, 1001, gradient), no_mask, v, w, {});
    const std::vector<float> moved = download(*device, w);
    for (std::size_t i = 0; i < moved.size(); ++i) {
        // sqrt(0.01 g^2) = |g| / 10. The decay 0.99 is rounded to float32 by up to 2^-25, which is 3e-6 of the 0.01
        // that is left; its root halves that. Epsilon is at most 1e-8 / 0.001 of the denominator.
        const double expected = -10 * static_cast<double>(rate) * (gradient[i] > 0 ? 1 : -1);
        EXPECT_NEAR(static_cast<double>(moved[i]), expected, std::fabs(expected) * (1.5e-6 + 1e-5 + 4 * unit_roundoff));
    }
}

TEST(RmspropStep, FollowsTheFormulaOverManySteps) {
    const auto device = make_test_device();
    for (const std::size_t size : {1U, 65U, 16385U}) {
        Random random(size);
        const std::vector<float> start = random.normals(size);
        std::vector<double> v(size, 0), w(start.begin(), start.end()), v_bound(size), w_bound(size);
        const Tensor v_device = upload(*device, 1, size, std::vector<float>(size, 0.0F)),
                     w_device = upload(*device, 1, size, start);
        constexpr float rate = 1e-3F;
        const Rmsprop rule{0.9F, 1e-6F};
        const auto decay = static_cast<double>(rule.decay);
        constexpr int steps = 5;
        for (int n = 0; n < steps; ++n) {
            const std::vector<float> g = random.normals(size);
            rmsprop_step(*device, rate, rule, upload(*device, 1, size, g), no_mask, v_device, w_device, {});
            for (std::size_t i = 0; i < size; ++i) {
                const auto gradient = static_cast<double>(g[i]);
                v[i] = decay * v[i] + (1 - decay) * gradient * gradient;
                const double change =
                    static_cast<double>(rate) * gradient / (std::sqrt(v[i]) + static_cast<double>(rule.epsilon));
                w[i] -= change;
                // Every step adds 5 u to v's relative error; the change carries half of it and 4 roundings.
                v_bound[i] = 5 * (n + 1) * unit_roundoff * v[i];
                w_bound[i] += unit_roundoff * (std::fabs(w[i]) + std::fabs(change) * (5 * (n + 1) + 5));
            }
        }
        expect_within(download(*device, v_device), v, v_bound, "v");
        expect_within(download(*device, w_device), w, w_bound, "w");
    }
}

TEST(RmspropStep, HeldMaskKeepsRemovedWeightsAtPositiveZero) {
    const auto device = make_test_device();
    const std::size_t size = 16390;
    Random random(3);
    const std::vector<float> start = random.normals(size), gradient = random.normals(size);
    std::vector<std::uint8_t> mask(size);
    for (auto& keep : mask) keep = static_cast<std::uint8_t>(random.below(2));
    std::vector<float> v_start(size);
    for (float& v : v_start) v = static_cast<float>(random.uniform(0, 1));
    const auto run = [&](TensorView held) {
        const Tensor v = upload(*device, 1, size, v_start), w = upload(*device, 1, size, start);
        rmsprop_step(*device, 1e-3F, {}, upload(*device, 1, size, gradient), held, v, w, {});
        return std::pair(download(*device, v), download(*device, w));
    };
    const Tensor mask_device = upload_bytes(*device, 1, size, mask);
    const auto [held_v, held_w] = run(mask_device);
    const auto [free_v, free_w] = run(no_mask);
    const float decay = Rmsprop{}.decay;
    for (std::size_t i = 0; i < size; ++i) {
        if (mask[i] != 0) {
            // Fused or not, one rounding may differ between the two loops.
            ASSERT_NEAR(held_w[i], free_w[i], 4 * unit_roundoff * std::fabs(free_w[i]) + 1e-10);
            ASSERT_NEAR(held_v[i], free_v[i], 2 * unit_roundoff * free_v[i]);
        } else {
            ASSERT_EQ(bits_of({&held_w[i], 1})[0], 0U) << i;
            ASSERT_EQ(held_v[i], decay * v_start[i]) << i;  // the masked gradient is zero
        }
    }
}

TEST(RmspropStep, ZeroGradientDoesNotMove) {
    const auto device = make_test_device();
    const std::vector<float> start = {1, -2, 3};
    const Tensor v = upload(*device, 1, 3, std::vector<float>(3, 0.0F)), w = upload(*device, 1, 3, start);
    rmsprop_step(*device, 1.0F, {}, upload(*device, 1, 3, std::vector<float>(3, 0.0F)), no_mask, v, w, {});
    EXPECT_EQ(download(*device, w), start);
}

TEST(RmspropStep, ShapeErrorsAreBugs) {
    const auto device = make_test_device();
    const Tensor a = make_poisoned(*device, 1, 3), b = make_poisoned(*device, 1, 4);
    const Tensor mask = device->make_tensor(DType::u8, 1, 4, "test");
    expect_error(ExitStatus::bug, {"optimizer_step"}, [&] { rmsprop_step(*device, 0, {}, a, no_mask, a, b, {}); });
    expect_error(ExitStatus::bug, {"mask of optimizer_step"}, [&] { rmsprop_step(*device, 0, {}, a, mask, a, a, {}); });
}

}  // namespace
}  // namespace espalier
