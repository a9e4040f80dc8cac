// What an evaluation takes, as planned and as measured.
#include "src/plan/evaluation_plan.h"

#include "src/evaluate/perplexity.h"
#include "src/weights/checkpoint_source.h"
#include "tests/support/expect.h"
#include "tests/support/measure.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/test_device.h"
#include "tests/support/tiny_model.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using namespace support;

class EvaluationPlanTest : public testing::Test {
  protected:
    static constexpr std::size_t length = 24;
    TemporaryFolder folder_;
    std::vector<std::int32_t> tokens_;
    std::unique_ptr<CheckpointSource> source_;
    std::vector<PackedSequences> passes_;

    EvaluationPlanTest() {
        for (std::int32_t i = 0; i < 400; ++i) tokens_.push_back(i * i % 5000);
        make_tiny_model("mistral", DType::bf16, 2, {{"vocab_size", 5000}}).write(folder_.path());
        source_ = std::make_unique<CheckpointSource>(folder_.path());
    }
    /// Of the text as it is now.
    PlannedEvaluation planned(std::size_t ranks = 1) {
        passes_ = windows_of_text(source_->config(), tokens_, length);
        return {*source_, passes_, ranks, "use a shorter --sequence-length"};
    }
    DeviceModel gpu_of(std::size_t bytes) const {
        DeviceModel model = device_model("h100");
        model.memory_bytes = bytes;
        model.reserved_bytes = 0;
        return model;
    }
};

TEST_F(EvaluationPlanTest, CountsWhatTheDeviceGivesOut) {
    for (const StoragePlace place : {StoragePlace::device, StoragePlace::host}) {
        const auto device = make_test_device(1);
        const PlannedEvaluation evaluation = planned();
        measure_alone(*device, *source_, passes_, place);
        const Rehearsal rehearsal = rehearse_evaluation(evaluation, 0, counting_model(*device), place);
        EXPECT_EQ(rehearsal.flops, device->flops());
        const auto counted = static_cast<double>(rehearsal.peak_bytes());
        const auto measured = static_cast<double>(device->memory().peak());
        if (!test_device_is_gpu()) {
            EXPECT_EQ(counted, measured) << describe(rehearsal.memory);
        }
        EXPECT_GE(counted, measured) << describe(rehearsal.memory);
        EXPECT_LE(counted, 1.05 * measured) << describe(rehearsal.memory);
    }
}

TEST_F(EvaluationPlanTest, WindowsMoveOutWhenTheyDoNotFit) {
    tokens_.resize(100'000);  // windows that take more than the logits
    const MemoryPlan whole = plan_evaluation_memory(planned(), 0, gpu_of(std::size_t{1} << 40));
    EXPECT_EQ(whole.hidden_states, StoragePlace::device);
    const MemoryPlan smaller = plan_evaluation_memory(planned(), 0, gpu_of(whole.total() - 1));
    EXPECT_EQ(smaller.hidden_states, StoragePlace::host);
    EXPECT_LT(smaller.total(), whole.total());
    expect_error(ExitStatus::resources, {"hidden states in host memory", "head", "--gpu-memory"},
                 [&] { static_cast<void>(plan_evaluation_memory(planned(), 0, gpu_of(smaller.total() - 1))); });
}

TEST_F(EvaluationPlanTest, RanksShareTheWindows) {
    tokens_.resize(100'000);
    const DeviceModel gpu = gpu_of(std::size_t{1} << 40);
    const EvaluationPlan one = plan_evaluation(planned(), gpu), four = plan_evaluation(planned(4), gpu);
    EXPECT_LT(four.flops, one.flops);
    EXPECT_LT(four.memory.total(), one.memory.total());
    EXPECT_LT(four.file_seconds, one.file_seconds);
    EXPECT_GT(four.bytes_read, one.bytes_read) << "every rank reads the embedding";
}

TEST_F(EvaluationPlanTest, IsThatOfARankWithPasses) {
    tokens_.resize(3 * length);  // one pass
    const DeviceModel gpu = gpu_of(std::size_t{1} << 40);
    EXPECT_EQ(plan_evaluation(planned(5), gpu).flops, plan_evaluation(planned(1), gpu).flops);
    tokens_.resize(3 * 21 * length);  // 21 windows in each of three passes, of which one rank has two
    EXPECT_NEAR(plan_evaluation(planned(2), gpu).flops / plan_evaluation(planned(1), gpu).flops, 2.0 / 3, 1e-3);
}

TEST_F(EvaluationPlanTest, TellsTheHostMemoryOfWindowsThatMoveOut) {
    tokens_.resize(100'000);
    const EvaluationPlan inside = plan_evaluation(planned(), gpu_of(std::size_t{1} << 40));
    const EvaluationPlan outside = plan_evaluation(planned(), gpu_of(inside.memory.total() - 1));
    EXPECT_GE(outside.host_bytes, inside.host_bytes + tokens_.size() / length * length * 8 * sizeof(float));
}

TEST_F(EvaluationPlanTest, MoreMemoryThanNeededIsNotUsed) {
    tokens_.resize(100'000);
    const PlannedEvaluation evaluation = planned();
    const std::size_t small =
        rehearse_evaluation(evaluation, 0, gpu_of(std::size_t{1} << 31), StoragePlace::host).peak_bytes();
    const std::size_t large =
        rehearse_evaluation(evaluation, 0, gpu_of(std::size_t{1} << 40), StoragePlace::host).peak_bytes();
    EXPECT_EQ(small, large);
}

}  // namespace
}  // namespace espalier
