// Cross-entropy in panels of the vocabulary against a direct log-softmax in float64.
#include "tests/support/expect.h"
#include "tests/support/matrix.h"
#include "tests/support/test_device.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

namespace espalier {
namespace {

using namespace support;

/// Losses of the rows, computed panel by panel.
std::vector<float> losses_in_panels(Device& device, const Matrix& logits, const std::vector<std::int32_t>& targets,
                                    std::size_t panel) {
    const Tensor largest = make_poisoned(device, 1, logits.rows), sum = make_poisoned(device, 1, logits.rows),
                 target = make_poisoned(device, 1, logits.rows);
    device.start_cross_entropy(largest, sum, target);
    for (std::size_t first = 0; first < logits.columns; first += panel) {
        const std::size_t width = std::min(panel, logits.columns - first);
        std::vector<float> part;
        for (std::size_t t = 0; t < logits.rows; ++t) {
            const auto begin = logits.values.begin() + static_cast<std::ptrdiff_t>(t * logits.columns + first);
            part.insert(part.end(), begin, begin + static_cast<std::ptrdiff_t>(width));
        }
        device.cross_entropy_panel(upload(device, logits.rows, width, part), first, targets, largest, sum, target);
    }
    std::vector<float> losses = download(device, sum);
    const std::vector<float> maxima = download(device, largest), chosen = download(device, target);
    for (std::size_t t = 0; t < losses.size(); ++t) {
        losses[t] = static_cast<float>(std::log(static_cast<double>(losses[t])) + static_cast<double>(maxima[t]) -
                                       static_cast<double>(chosen[t]));
    }
    return losses;
}

/// Bound: every exponential's argument is rounded (u times the range of the logits), its result errs by 4 u, the sum
/// of n of them by n u; a panel that raises the maximum rescales once more. Then the loss is rounded.
Bounded direct_losses(const Matrix& logits, const std::vector<std::int32_t>& targets, std::size_t panels) {
    Bounded result(logits.rows);
    for (std::size_t t = 0; t < logits.rows; ++t) {
        double largest = logits(t, 0), smallest = largest, sum = 0;
        for (std::size_t j = 0; j < logits.columns; ++j) {
            largest = std::max(largest, logits(t, j));
            smallest = std::min(smallest, logits(t, j));
        }
        for (std::size_t j = 0; j < logits.columns; ++j) sum += std::exp(logits(t, j) - largest);
        const double loss = largest + std::log(sum) - logits(t, static_cast<std::size_t>(targets[t]));
        result.values[t] = loss;
        result.bounds[t] = unit_roundoff * (static_cast<double>(logits.columns) + (largest - smallest) + 4 +
                                            static_cast<double>(panels) * (6 + largest - smallest) + std::fabs(loss));
    }
    return result;
}

TEST(CrossEntropy, PanelsOfAnyWidthGiveTheLogSoftmax) {
    const auto device = make_test_device();
    for (const std::size_t rows : {1U, 2U, 63U, 65U}) {
        for (const std::size_t vocabulary : {1U, 2U, 130U, 1000U}) {
            Random random(rows * 7919 + vocabulary);
            const Matrix logits = Matrix::random(random, rows, vocabulary, 8);
            std::vector<std::int32_t> targets(rows);
            for (auto& target : targets) target = static_cast<std::int32_t>(random.below(vocabulary));
            targets[0] = static_cast<std::int32_t>(vocabulary - 1);
            for (const std::size_t panel : {vocabulary, vocabulary / 130 + 1, std::size_t{64}, std::size_t{129}}) {
                const Bounded expected = direct_losses(logits, targets, (vocabulary + panel - 1) / panel);
                expect_within(losses_in_panels(*device, logits, targets, panel), expected.values, expected.bounds,
                              std::to_string(rows) + " rows, vocabulary " + std::to_string(vocabulary) + ", panel " +
                                  std::to_string(panel));
            }
        }
    }
}

TEST(CrossEntropy, AscendingAndDescendingMaxima) {
    // The maximum moves in every panel, or never after the first.
    const auto device = make_test_device();
    Matrix logits{2, 512, std::vector<float>(1024)};
    for (std::size_t j = 0; j < 512; ++j) {
        logits.values[j] = static_cast<float>(j) / 4 - 64;
        logits.values[512 + j] = 64 - static_cast<float>(j) / 4;
    }
    const std::vector<std::int32_t> targets = {511, 300};
    const Bounded expected = direct_losses(logits, targets, 16);
    expect_within(losses_in_panels(*device, logits, targets, 32), expected.values, expected.bounds, "loss");
}

TEST(CrossEntropy, NonFiniteLogitsShow) {
    const auto device = make_test_device();
    Matrix logits{1, 4, {1, 2, std::numeric_limits<float>::quiet_NaN(), 3}};
    EXPECT_FALSE(std::isfinite(losses_in_panels(*device, logits, {0}, 4)[0]));
    logits.values[2] = std::numeric_limits<float>::infinity();
    EXPECT_FALSE(std::isfinite(losses_in_panels(*device, logits, {0}, 4)[0]));
}

/// softmax of a row, in float64.
std::vector<double> softmax_of(const Matrix& logits, std::size_t row) {
    double largest = logits(row, 0), sum = 0;
    for (std::size_t j = 0; j < logits.columns; ++j) largest = std::max(largest, logits(row, j));
    std::vector<double> shares(logits.columns);
    for (std::size_t j = 0; j < logits.columns; ++j) sum += shares[j] = std::exp(logits(row, j) - largest);
    for (double& share : shares) share /= sum;
    return shares;
}

/// A model's logits with what the first pass over the vocabulary leaves of them.
struct FirstPass {
    Tensor largest, sum, target;

    FirstPass(Device& device, const Matrix& logits, std::span<const std::int32_t> targets)
        : largest(make_poisoned(device, 1, logits.rows)),
          sum(make_poisoned(device, 1, logits.rows)),
          target(make_poisoned(device, 1, logits.rows)) {
        device.start_cross_entropy(largest, sum, target);
        device.cross_entropy_panel(upload(device, logits.rows, logits.columns, logits.values), 0, targets, largest, sum,
                                   target);
    }
    LogitSums sums() const { return {largest, sum, target}; }
};

TEST(LossGradient, OfTheTextAndOfATeacher) {
    const auto device = make_test_device();
    constexpr std::size_t rows = 33, vocabulary = 301, panel = 128;
    Random random(5);
    const Matrix logits = Matrix::random(random, rows, vocabulary, 4),
                 wanted = Matrix::random(random, rows, vocabulary, 4);
    std::vector<std::int32_t> targets(rows);
    for (auto& target : targets) target = static_cast<std::int32_t>(random.below(vocabulary));
    targets[0] = 0;
    targets[1] = vocabulary - 1;
    const FirstPass student(*device, logits, targets), teacher(*device, wanted, targets);
    for (const LossWeights weights : {LossWeights{1, 0}, LossWeights{0, 1}, LossWeights{0.33F, 0.67F}}) {
        const bool asks = weights.divergence != 0;
        const Tensor divergences = make_poisoned(*device, 1, rows);
        device->fill_zero(divergences);
        Bounded gradient(rows * vocabulary), divergence(rows);
        std::vector<float> found(rows * vocabulary);
        for (std::size_t first = 0; first < vocabulary; first += panel) {
            const std::size_t width = std::min(panel, vocabulary - first);
            const auto part = [&](const Matrix& all) {
                std::vector<float> values;
                for (std::size_t t = 0; t < rows; ++t) {
                    const float* const row = all.values.data() + t * vocabulary + first;
                    values.insert(values.end(), row, row + width);
                }
                return upload(*device, rows, width, values);
            };
            const Tensor of_panel = part(logits), of_teacher = asks ? part(wanted) : Tensor();
            device->token_loss_gradient(weights, student.sums(), first, targets, of_teacher,
                                        asks ? teacher.sums() : LogitSums{}, asks ? divergences.view() : TensorView{},
                                        of_panel);
            const std::vector<float> values = download(*device, of_panel);
            for (std::size_t t = 0; t < rows; ++t)
                std::copy_n(values.data() + t * width, width, found.data() + t * vocabulary + first);
        }
        for (std::size_t t = 0; t < rows; ++t) {
            const std::vector<double> p = softmax_of(logits, t), q = softmax_of(wanted, t);
            const auto a = static_cast<double>(weights.language_model), b = static_cast<double>(weights.divergence);
            for (std::size_t j = 0; j < vocabulary; ++j) {
                const double onehot = j == static_cast<std::size_t>(targets[t]) ? 1 : 0;
                gradient.values[t * vocabulary + j] = (a + b) * p[j] - a * onehot - b * q[j];
                // Exponents up to 64 in size are rounded, the log-sum-exp and the exponential err by some units more.
                gradient.bounds[t * vocabulary + j] = 100 * unit_roundoff * (p[j] + q[j] + onehot);
                divergence.values[t] += q[j] * std::log(q[j] / p[j]);
                divergence.bounds[t] += 200 * unit_roundoff * q[j] * (1 + std::fabs(std::log(q[j] / p[j])));
            }
        }
        expect_within(found, gradient.values, gradient.bounds, "gradient");
        if (asks) expect_within(download(*device, divergences), divergence.values, divergence.bounds, "divergence");
    }
}

TEST(LossGradient, ATeacherThatIsNotAskedIsABug) {
    const auto device = make_test_device();
    const Tensor logits = make_poisoned(*device, 1, 4), state = make_poisoned(*device, 1, 1);
    const std::vector<std::int32_t> target = {0};
    const LogitSums sums = {state, state, state};
    expect_error(ExitStatus::bug, {"teacher"}, [&] {
        device->token_loss_gradient({0, 1}, sums, 0, target, {}, sums, state, logits);
    });
}

TEST(CrossEntropy, ShapeErrorsAreBugs) {
    const auto device = make_test_device();
    const Tensor logits = make_poisoned(*device, 3, 4), state = make_poisoned(*device, 1, 3);
    const std::vector<std::int32_t> two_targets = {0, 1};
    expect_error(ExitStatus::bug, {"cross_entropy_panel"},
                 [&] { device->cross_entropy_panel(logits, 0, two_targets, state, state, state); });
}

}  // namespace
}  // namespace espalier
