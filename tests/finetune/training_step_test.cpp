// A step of fine-tuning is the same bits wherever weights and hidden states lie.
#include "src/finetune/training_step.h"

#include "src/weights/checkpoint_source.h"
#include "tests/support/random.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/test_device.h"
#include "tests/support/tiny_model.h"

#include <gtest/gtest.h>

#include <numeric>

namespace espalier {
namespace {

using namespace support;

class TrainingStepTest : public testing::TestWithParam<TrainedPart> {
  protected:
    TrainingStepTest() {
        make_tiny_model("qwen3").write(folder_.path() / "model");
        options_.train = GetParam();
        options_.rank = 3;
        options_.loss = FinetuneLoss::mix;
        options_.train_norms = true;
        options_.samples = 4;
        options_.sequence_length = 100;  // two samples a pass
        options_.batch = 3;
        options_.steps = 4;
        options_.learning_rate = 1e-2;
        Random random(4);
        for (std::size_t i = 0; i < options_.samples * options_.sequence_length; ++i)
            ids_.push_back(static_cast<std::int32_t>(random.below(source().config().vocabulary)));
    }

    CheckpointSource source() const { return CheckpointSource(folder_.path() / "model"); }

    struct Outcome {
        std::vector<std::vector<std::uint32_t>> values;
        std::vector<double> losses;
        bool operator==(const Outcome&) const = default;
    };
    Outcome train(WeightPlace weights, StoragePlace hidden_states) const {
        const auto device = make_test_device();
        const auto alone = make_single_communicator();
        const CheckpointSource model = source();
        const TrainingContext context = {.device = *device,
                                         .group = *alone,
                                         .control = *alone,
                                         .options = options_,
                                         .student = model,
                                         .teacher = &model,
                                         .ids = ids_,
                                         .weights = weights,
                                         .hidden_states = hidden_states};
        TrainedValues values(context);
        TeacherStates teacher(context, [](const std::string&) {});
        OuterWeights outer(*device, *alone, model, OuterWeights::Parts::all);
        values.start_end(outer.final_norm());
        StudentWeights student(context, values);
        TrainingStep step(context, outer, student, values, &teacher);
        Outcome outcome;
        for (std::size_t number = 1; number <= 2; ++number)
            outcome.losses.push_back(step.take(samples_of_step(options_, number - 1), number).loss.language_model);
        std::vector<std::size_t> all(options_.samples);
        std::iota(all.begin(), all.end(), std::size_t{0});
        outcome.losses.push_back(step.measure(all).divergence);
        for (std::size_t unit = 0; unit < values.units(); ++unit)
            outcome.values.push_back(bits_of(values.part_on_host(unit, TrainedValues::State::values)));
        return outcome;
    }

    TemporaryFolder folder_;
    FinetuneOptions options_;
    std::vector<std::int32_t> ids_;
};
std::string name_of_part(const testing::TestParamInfo<TrainedPart>& info) {
    std::string name(name_of(info.param));
    std::erase(name, '-');
    return name;
}
INSTANTIATE_TEST_SUITE_P(Parts, TrainingStepTest,
                         testing::Values(TrainedPart::masked_lora, TrainedPart::lora, TrainedPart::masked),
                         name_of_part);

class UpdateDropoutTest : public TrainingStepTest {};
INSTANTIATE_TEST_SUITE_P(Parts, UpdateDropoutTest, testing::Values(TrainedPart::masked_lora, TrainedPart::lora),
                         name_of_part);

TEST_P(UpdateDropoutTest, GoesWithTheRowsOfTheRun) {
    options_.dropout = 0.5;
    options_.sequence_length = 20;
    const Outcome expected = train(WeightPlace::resident, StoragePlace::device);
    EXPECT_EQ(train(WeightPlace::shared, StoragePlace::host), expected);
    options_.dropout = 0;
    const Outcome without = train(WeightPlace::resident, StoragePlace::device);
    EXPECT_EQ(without.losses[0], expected.losses[0]) << "updates are zero in the first step";
    EXPECT_NE(without.losses[1], expected.losses[1]);
}

TEST_P(TrainingStepTest, BitsDoNotDependOnWhereThingsLie) {
    const Outcome expected = train(WeightPlace::resident, StoragePlace::device);
    EXPECT_GT(expected.losses[2], 0) << "the student has left its teacher";
    EXPECT_EQ(train(WeightPlace::shared, StoragePlace::host), expected);
}

}  // namespace
}  // namespace espalier
