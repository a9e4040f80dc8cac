// Steps taken by one rank alone and steps shared by all, with gradients made up by the test, against RMSprop on the
// host.
#include "mpi/tensor_communicator.h"
#include "src/optimize/step_sharing.h"
#include "tests/support/ranks.h"
#include "tests/support/test_device.h"
#include "tests/support/tiny_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

namespace espalier {
namespace {

using namespace support;

constexpr float rate = 1e-2F;

/// A sample is a number; the gradient of element i of a matrix is the number times (i % 5 - 1): small integers, whose
/// sums are exact in any order.
float factor_of(std::size_t element) {
    return static_cast<float>(element % 5) - 1;
}

class StepSharingTest : public testing::Test {
  protected:
    ModelConfig config_ = parse_tiny_config("mistral", {{"hidden_size", 64}, {"intermediate_size", 160}});
    BlockLayout layout_{config_};
    std::unique_ptr<Device> device_ = make_test_device(1);
    TensorCommunicator tensors_{world(), *device_};
    Topology topology_{static_cast<std::size_t>(world().size()), 4, 1, 16, 16};
    GroupContext context_{.device = *device_,
                          .group = tensors_.get(),
                          .control = world(),
                          .topology = topology_,
                          .block_group = topology_.groups()[0],
                          .config = config_,
                          .layout = layout_,
                          .tokens = 4};
    PruneOptions options_;
    BlockWeights run_{*device_, layout_, DType::f32};
    BlockTensor mask_{*device_, layout_, DType::u8, "test"};
    std::vector<float> expected_, square_averages_;
    std::vector<std::uint8_t> kept_;

    StepSharingTest() {
        expected_.resize(layout_.weights());
        for (std::size_t i = 0; i < expected_.size(); ++i) expected_[i] = static_cast<float>(i % 9) - 4;
        square_averages_.assign(expected_.size(), 0);
        device_->copy_from_host(expected_.data(), run_.matrices.all());
        for (std::size_t i = 0; i < expected_.size(); ++i) kept_.push_back(i % 3 == 0 ? 0 : 1);
        device_->copy_from_host(kept_.data(), mask_.all());
    }

    void step_on_host(float sum_of_samples, bool holds_mask) {
        const Rmsprop rule;
        for (const MatrixShape& matrix : layout_.matrices()) {
            for (std::size_t i = 0; i < matrix.size(); ++i) {
                const std::size_t at = matrix.offset + i;
                if (holds_mask && kept_[at] == 0) {
                    expected_[at] = 0;
                    continue;
                }
                const float gradient = sum_of_samples * factor_of(i);
                float& average = square_averages_[at];
                average = rule.decay * average + (1 - rule.decay) * gradient * gradient;
                expected_[at] -= rate * gradient / (std::sqrt(average) + rule.epsilon);
            }
        }
    }
    /// Hands the sink the gradients of one sample, two panels a matrix.
    void pass(float sample, WeightGradientSink& sink) {
        for (const LinearLayer layer : layout_.backward_order()) {
            const MatrixShape& matrix = layout_.matrix(layer);
            std::vector<float> gradient(matrix.size());
            for (std::size_t i = 0; i < gradient.size(); ++i) gradient[i] = sample * factor_of(i);
            const Tensor all = upload(*device_, matrix.rows, matrix.columns, gradient);
            const std::size_t half = matrix.rows / 2;
            sink.consume(layer, 0, all.view().row_range(0, half));
            sink.consume(layer, half, all.view().row_range(half, matrix.rows));
            sink.finished(layer);
        }
    }
    /// Mini-batches of these samples, one after the other.
    void take_steps(const std::vector<std::vector<float>>& batches, bool holds_mask) {
        constexpr std::size_t block = 1;
        const WeightPartition partition = partition_of_steps(context_, options_, block);
        OptimizedWeights weights(context_, partition, DType::f32, false, run_);
        OptimizerState state(context_, partition, Rmsprop{}, weights);
        state.reset();
        const std::unique_ptr<StepSharing> sharing = make_step_sharing(context_, options_, block, state);
        std::size_t number = 1;
        for (const std::vector<float>& batch : batches) {
            const std::vector<std::size_t> offsets = sharing->assignment().offsets(batch.size());
            sharing->take({Rmsprop{}, rate, number++}, offsets, holds_mask ? &mask_ : nullptr,
                          [&](std::size_t index, WeightGradientSink& sink) {
                              pass(batch[offsets[context_.me()] + index], sink);
                          });
            step_on_host(std::accumulate(batch.begin(), batch.end(), 0.0F), holds_mask);
        }
        sharing->settle();
        weights.store(DType::f32);
    }
    void expect_weights() {
        const std::vector<float> found = download(*device_, run_.matrices.all());
        for (std::size_t i = 0; i < found.size(); ++i) {
            ASSERT_NEAR(found[i], expected_[i], 1e-5 * std::abs(expected_[i]) + 1e-6) << i;
        }
    }
};

TEST_F(StepSharingTest, TheOwnerStepsAloneAndAllGetItsWeights) {
    options_.ro.batch = 1;
    take_steps({{1}, {3}, {-2}}, false);
    expect_weights();
}

TEST_F(StepSharingTest, TheOwnerHoldsTheMask) {
    options_.ro.batch = 1;
    take_steps({{1}, {3}}, true);
    expect_weights();
}

// More samples than ranks, fewer, and a last batch that is smaller.
TEST_F(StepSharingTest, MiniBatchesAreSummedBeforeTheStep) {
    options_.ro.batch = 6;
    take_steps({{1, 2, 3, 4, 5, 6}, {2, -1, 4, -3, 1, 1}, {3, 2}}, false);
    expect_weights();
}

TEST_F(StepSharingTest, MiniBatchesHoldTheMask) {
    options_.ro.batch = 2;
    take_steps({{1, 2}, {3, -1}}, true);
    expect_weights();
}

}  // namespace
}  // namespace espalier
