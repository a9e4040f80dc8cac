// One AdamW step, against its definition in float64.
#include "tests/support/expect.h"
#include "tests/support/matrix.h"
#include "tests/support/test_device.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace espalier {
namespace {

using namespace support;

struct AdamWStepTest : testing::Test {
    std::unique_ptr<Device> device_ = make_test_device();
    Tensor m_, v_, w_;

    void start(const std::vector<float>& weight) {
        const std::vector<float> zeros(weight.size(), 0.0F);
        m_ = upload(*device_, 1, weight.size(), zeros);
        v_ = upload(*device_, 1, weight.size(), zeros);
        w_ = upload(*device_, 1, weight.size(), weight);
    }
    void step(const AdamW& rule, float rate, std::size_t number, const std::vector<float>& gradient,
              TensorView mask = {}, TensorView rounded = {}) {
        const Tensor g = upload(*device_, 1, gradient.size(), gradient);
        device_->optimizer_step({rule, rate, number}, {g, mask, {m_, v_}, w_, rounded});
    }
};

TEST_F(AdamWStepTest, FirstStepIsTheRateAgainstTheGradientsSign) {
    Random random(1);
    std::vector<float> gradient = random.normals(1001);
    for (float& g : gradient) g = std::copysign(std::max(std::fabs(g), 0.01F), g);
    start(std::vector<float>(1001, 0.0F));
    const float rate = 3e-5F;
    step({}, rate, 1, gradient);
    const std::vector<float> moved = download(*device_, w_);
    for (std::size_t i = 0; i < moved.size(); ++i) {
        // 1 - beta is rounded to float32 in the moments, not in their correction: 2^-25 of 0.1 and of 0.05. Epsilon is
        // at most 1e-8 / 0.01 of the denominator.
        const double expected = -static_cast<double>(rate) * (gradient[i] > 0 ? 1 : -1);
        EXPECT_NEAR(static_cast<double>(moved[i]), expected, std::fabs(expected) * (1e-6 + 1e-6 + 8 * unit_roundoff));
    }
}

TEST_F(AdamWStepTest, FollowsTheFormulaOverManySteps) {
    for (const float weight_decay : {0.0F, 0.1F}) {
        for (const std::size_t size : {1U, 65U, 16385U}) {
            Random random(size);
            const std::vector<float> begin = random.normals(size);
            start(begin);
            std::vector<double> m(size, 0), v(size, 0), w(begin.begin(), begin.end()), bound(size);
            const AdamW rule{0.9F, 0.95F, 1e-6F, weight_decay};
            constexpr float rate = 1e-2F;
            const auto beta1 = static_cast<double>(rule.beta1), beta2 = static_cast<double>(rule.beta2);
            for (int n = 1; n <= 5; ++n) {
                const std::vector<float> g = random.normals(size);
                step(rule, rate, static_cast<std::size_t>(n), g);
                for (std::size_t i = 0; i < size; ++i) {
                    const auto gradient = static_cast<double>(g[i]);
                    m[i] = beta1 * m[i] + (1 - beta1) * gradient;
                    v[i] = beta2 * v[i] + (1 - beta2) * gradient * gradient;
                    const double root = std::sqrt(v[i] / (1 - std::pow(beta2, n))) + static_cast<double>(rule.epsilon);
                    const double scale = static_cast<double>(rate) / (1 - std::pow(beta1, n)) / root;
                    w[i] -= scale * m[i] + static_cast<double>(rate) * static_cast<double>(weight_decay) * w[i];
                    // m's terms may cancel, so its error is counted against the largest of them, up to 5 u a step; v
                    // and the quotients add as many again.
                    bound[i] += unit_roundoff * (2 * std::fabs(w[i]) + scale * 4 * (10 * n + 10));
                }
            }
            expect_within(download(*device_, w_), w, bound, "w");
        }
    }
}

TEST_F(AdamWStepTest, HeldMaskKeepsRemovedWeightsAtPositiveZero) {
    const std::size_t size = 16390;
    Random random(3);
    const std::vector<float> begin = random.normals(size), first = random.normals(size), second = random.normals(size);
    std::vector<std::uint8_t> mask(size);
    for (auto& keep : mask) keep = static_cast<std::uint8_t>(random.below(2));
    const Tensor mask_on_device = upload_bytes(*device_, 1, size, mask);
    const auto run = [&](TensorView held) {
        start(begin);
        step({}, 1e-3F, 1, first, held);
        step({}, 1e-3F, 2, second, held);
        return download(*device_, w_);
    };
    const std::vector<float> with_mask = run(mask_on_device), m = download(*device_, m_), free = run({});
    for (std::size_t i = 0; i < size; ++i) {
        if (mask[i] != 0) {
            // Fused or not, some roundings may differ between the two loops.
            ASSERT_NEAR(with_mask[i], free[i], 4 * unit_roundoff * std::fabs(free[i]) + 1e-8);
        } else {
            ASSERT_EQ(bits_of({&with_mask[i], 1})[0], 0U) << i;
            ASSERT_EQ(m[i], 0.0F) << i;
        }
    }
}

TEST_F(AdamWStepTest, TheRoundedCopyIsOfTheNewWeights) {
    const std::vector<float> begin = {1, -2, 3};
    start(begin);
    const Tensor rounded = make_poisoned(*device_, 1, 3);
    step({}, 0.5F, 1, {1, 1, -1}, {}, rounded);
    EXPECT_EQ(download(*device_, rounded), download(*device_, w_));
    EXPECT_NE(download(*device_, w_), begin);
}

TEST_F(AdamWStepTest, MissingMomentsAndStepZeroAreBugs) {
    start({1, 2, 3});
    const Tensor g = make_poisoned(*device_, 1, 3);
    expect_error(ExitStatus::bug, {"moments of optimizer_step"}, [&] {
        device_->optimizer_step({AdamW{}, 0, 1}, {g, {}, {m_}, w_, {}});
    });
    expect_error(ExitStatus::bug, {"counted from 1"}, [&] { step({}, 0, 0, {1, 1, 1}); });
}

TEST_F(AdamWStepTest, AScaledGradientIsTheGradientTimesTheScale) {
    Random random(9);
    const std::vector<float> weight = random.normals(333), gradient = random.normals(333);
    std::vector<float> halved = gradient;
    for (float& g : halved) g *= 0.5F;
    start(weight);
    step({}, 1e-2F, 1, halved);
    const std::vector<std::uint32_t> expected = bits_of(download(*device_, w_));
    start(weight);
    OptimizerStep scaled{AdamW{}, 1e-2F, 1};
    scaled.gradient_scale = 0.5F;
    const Tensor g = upload(*device_, 1, gradient.size(), gradient);
    device_->optimizer_step(scaled, {g, {}, {m_, v_}, w_, {}});
    EXPECT_EQ(bits_of(download(*device_, w_)), expected);
}

}  // namespace
}  // namespace espalier
