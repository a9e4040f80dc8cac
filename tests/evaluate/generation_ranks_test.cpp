// Tokens are the same on any number of ranks, whether each has the whole model or several share it.
#include "mpi/tensor_communicator.h"
#include "src/evaluate/generation.h"
#include "src/weights/checkpoint_source.h"
#include "tests/support/ranks.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/test_device.h"
#include "tests/support/tiny_model.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using namespace support;

TEST(GenerationRanksTest, RanksAndStagesDrawTheSameTokens) {
    const TemporaryFolder folder;  // each rank its own
    Json changes = Json::object();
    changes["num_hidden_layers"] = 4;
    make_tiny_model("llama", DType::f32, 1, changes).write(folder.path());
    const CheckpointSource source(folder.path());
    const auto device = make_test_device(1);
    const SayProgress say_nothing = [](const std::string&) {};
    GenerationOptions options;
    options.samples = 7;
    options.sequence_length = 12;
    options.batch = 2;
    options.prompts = {1};
    const auto alone = make_single_communicator();
    const auto expected = generate_tokens(
        {.device = *device, .group = *alone, .control = *alone, .source = source, .progress = say_nothing}, options);
    const TensorCommunicator tensors(world(), *device);
    for (std::size_t stages = 1; stages <= 4; ++stages) {
        if (static_cast<std::size_t>(world().size()) % stages != 0) continue;
        options.stages = stages;
        EXPECT_EQ(generate_tokens({.device = *device,
                                   .group = tensors.get(),
                                   .control = world(),
                                   .source = source,
                                   .progress = say_nothing},
                                  options),
                  expected)
            << stages << " stages";
    }
}

}  // namespace
}  // namespace espalier
