// Logits that are kept between the two passes over the vocabulary, and such that are computed again.
#include "src/finetune/head_loss.h"

#include "src/weights/checkpoint_source.h"
#include "tests/support/random.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/test_device.h"
#include "tests/support/tiny_model.h"

#include <gtest/gtest.h>

#include <vector>

namespace espalier {
namespace {

using namespace support;

constexpr std::size_t vocabulary = 301, length = 9, rows = 2 * length, predicted = rows - 2;

class HeadLossTest : public testing::Test {
  protected:
    HeadLossTest() {
        const Json changes = {{"vocab_size", vocabulary}};
        make_tiny_model("qwen3", DType::f32, 1, changes).write(folder_.path() / "student");
        make_tiny_model("qwen3", DType::f32, 2, changes).write(folder_.path() / "teacher");
        Random random(3);
        for (std::size_t i = 0; i < rows; ++i) ids_.push_back(static_cast<std::int32_t>(random.below(vocabulary)));
        states_ = random.normals(rows * hidden());
        teacher_states_ = random.normals(predicted * hidden());
    }

    CheckpointSource source(const char* name) const { return CheckpointSource(folder_.path() / name); }
    std::size_t hidden() const { return source("student").config().hidden_size; }

    struct Outcome {
        std::vector<std::uint32_t> gradient, gain;
        std::vector<double> losses;  ///< of the gradient's pass, then of one that measures
        bool operator==(const Outcome&) const = default;
    };
    Outcome compute(bool with_teacher, const LogitLimits& limits) const {
        const auto device = make_test_device();
        const auto alone = make_single_communicator();
        const OuterWeights student(*device, *alone, source("student"), OuterWeights::Parts::all);
        const OuterWeights teacher(*device, *alone, source("teacher"), OuterWeights::Parts::norm_and_head);
        const LossWeights weights = with_teacher ? LossWeights{0.33F, 0.67F} : LossWeights{1, 0};
        HeadLoss head(*device, student, with_teacher ? &teacher : nullptr, weights, predicted, limits);
        const Tensor states = upload(*device, rows, hidden(), states_);
        const Tensor of_teacher = device->make_tensor(teacher.head().dtype, predicted, hidden(), "test");
        device->convert(upload(*device, predicted, hidden(), teacher_states_), of_teacher);
        const Tensor gradient = make_poisoned(*device, rows, hidden()), gain = make_poisoned(*device, 1, hidden());
        const Predictions predictions = Predictions::of(ids_, length);
        const TensorView towards = with_teacher ? of_teacher.view() : TensorView{};
        Outcome outcome;
        const auto read = [&] {
            for (const LossSums& loss : head.read()) {
                outcome.losses.push_back(loss.language_model);
                outcome.losses.push_back(loss.divergence);
            }
        };
        head.gradient(predictions, states, towards, gradient, gain);
        read();
        head.measure(predictions, states, towards);
        read();
        outcome.gradient = bits_of(download(*device, gradient));
        outcome.gain = bits_of(download(*device, gain));
        return outcome;
    }

    TemporaryFolder folder_;
    std::vector<std::int32_t> ids_;
    std::vector<float> states_, teacher_states_;
};

TEST_F(HeadLossTest, BitsDoNotDependOnWhetherLogitsAreKept) {
    for (const bool with_teacher : {false, true}) {
        const Outcome kept = compute(with_teacher, {.panel = 128}), again = compute(with_teacher, {128, 0});
        EXPECT_EQ(kept, again) << with_teacher;
        ASSERT_EQ(kept.losses.size(), 4 * predicted);
        for (std::size_t i = 0; i < 2 * predicted; ++i)
            EXPECT_EQ(kept.losses[i], kept.losses[2 * predicted + i]) << "a loss is the same where nothing is trained";
    }
}

}  // namespace
}  // namespace espalier
