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

TEST(CrossEntropy, ShapeErrorsAreBugs) {
    const auto device = make_test_device();
    const Tensor logits = make_poisoned(*device, 3, 4), state = make_poisoned(*device, 1, 3);
    const std::vector<std::int32_t> two_targets = {0, 1};
    expect_error(ExitStatus::bug, {"cross_entropy_panel"},
                 [&] { device->cross_entropy_panel(logits, 0, two_targets, state, state, state); });
}

}  // namespace
}  // namespace espalier
