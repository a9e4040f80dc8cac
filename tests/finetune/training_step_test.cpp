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

class TwoSteps : public testing::Test {
  protected:
    TwoSteps() {
        make_tiny_model("qwen3").write(folder_.path() / "model");
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
    Outcome train(WeightPlace weights, StoragePlace hidden_states, StatePlace states = StatePlace::device) const {
        const auto device = make_test_device();
        const auto alone = make_single_communicator();
        const CheckpointSource model = source();
        const TrainingContext context = {.device = *device,
                                         .group = *alone,
                                         .control = *alone,
                                         .options = options_,
                                         .student = model,
                                         .teacher = &model,
                                         .teacher_shares_head = states != StatePlace::device,
                                         .ids = ids_,
                                         .weights = weights,
                                         .hidden_states = hidden_states,
                                         .states = states,
                                         .state_file = folder_.path() / "state"};
        TrainedValues values(context);
        OuterWeights outer(*device, *alone, model, OuterWeights::Parts::all);
        TeacherStates teacher(context, outer, [](const std::string&) {});
        values.start_end(outer.final_norm());
        StudentWeights student(context, values);
        TrainingStep step(context, outer, student, values, &teacher);
        EXPECT_FALSE(std::filesystem::exists(context.state_file)) << "nothing to remove, whatever ends the program";
        Outcome outcome;
        for (std::size_t number = 1; number <= 2; ++number) {
            if (number == 2 && options_.held_out > 0) values.keep_best();
            outcome.losses.push_back(step.take(samples_of_step(options_, number - 1), number).loss.language_model);
        }
        std::vector<std::size_t> all(options_.samples);
        std::iota(all.begin(), all.end(), std::size_t{0});
        outcome.losses.push_back(step.measure(all).divergence);
        for (std::size_t unit = 0; unit < values.units(); ++unit) {
            for (const TrainedState state : values.checkpoint_states())
                outcome.values.push_back(bits_of(values.part_on_host(unit, state)));
        }
        return outcome;
    }

    TemporaryFolder folder_;
    FinetuneOptions options_;
    std::vector<std::int32_t> ids_;
};

class TrainingStepTest : public TwoSteps, public testing::WithParamInterface<TrainedPart> {
  protected:
    TrainingStepTest() { options_.train = GetParam(); }
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

class PlaceOfStatesTest : public TwoSteps, public testing::WithParamInterface<double> {};
INSTANTIATE_TEST_SUITE_P(Norms, PlaceOfStatesTest, testing::Values(0, 1e-3),
                         [](const auto& info) { return info.param > 0 ? "bounded" : "unbounded"; });

// Gradients that wait for their norm, and such that are followed as they come.
TEST_P(PlaceOfStatesTest, BitsDoNotDependOnIt) {
    options_.train = TrainedPart::masked;
    options_.gradient_norm = GetParam();
    options_.held_out = 1;
    const Outcome expected = train(WeightPlace::resident, StoragePlace::device);
    std::vector<StatePlace> places = {StatePlace::host};
    if (!test_device_is_gpu()) places.push_back(StatePlace::file);
    for (const StatePlace place : places) {
        EXPECT_EQ(train(WeightPlace::resident, StoragePlace::device, place), expected);
        EXPECT_EQ(train(WeightPlace::shared, StoragePlace::host, place), expected);
    }
}

}  // namespace
}  // namespace espalier
