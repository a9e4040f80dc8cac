// Blocks from storage to the device.
#include "src/blocks/block_loader.h"

#include "src/weights/checkpoint_source.h"
#include "tests/support/expect.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/test_device.h"
#include "tests/support/tiny_model.h"

#include <gtest/gtest.h>

#include <cmath>

namespace espalier {
namespace {

using namespace support;

TEST(BlockLoader, WidensAndRefusesNonFiniteWeights) {
    const auto device = make_test_device();
    const auto alone = make_single_communicator();
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
        TinyModel model = make_tiny_model("qwen3-bias", dtype);
        const TemporaryFolder folder;
        model.write(folder.path());
        const CheckpointSource source(folder.path());
        const BlockLoader loader(*device, source.layout(), *alone);
        BlockWeights weights(*device, source.layout(), DType::f32);
        loader.load(source.storage(), 1, loader.read(source, 1), weights);
        const TinyTensor& q = model.tensor("model.layers.1.self_attn.q_proj.weight");
        std::vector<float> expected(q.values.size());
        widen_to_float(dtype, stored_bytes(q).data(), expected.size(), expected.data());
        EXPECT_EQ(download(*device, weights.matrices.matrix(source.layout().attention.q)), expected);
        EXPECT_FALSE(weights.projection(source.layout().attention.o).bias.empty());

        model.tensor("model.layers.1.mlp.up_proj.weight").values[3] = std::nanf("");
        model.tensor("model.layers.1.mlp.up_proj.weight").values[4] = INFINITY;
        model.write(folder.path());
        const CheckpointSource damaged(folder.path());
        expect_input_error({"model.layers.1.mlp.up_proj.weight", "2 of 384", "not a number"},
                           [&] { loader.load(source.storage(), 1, loader.read(damaged, 1), weights); });
    }
}

}  // namespace
}  // namespace espalier
