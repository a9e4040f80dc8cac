// Every rank counts in its own part, and all have the share of the whole block.
#include "mpi/tensor_communicator.h"
#include "src/method/rounding_loss.h"
#include "src/weights/synthetic_source.h"
#include "tests/support/ranks.h"
#include "tests/support/test_device.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using namespace support;

TEST(UnchangedWeightShareOnRanks, IsThatOfTheWholeBlock) {
    const SyntheticSource source("synthetic:llama-tiny");
    const BlockLayout& layout = source.layout();
    const auto device = make_test_device(1);
    const TensorCommunicator tensors(world(), *device);
    const BlockLoader loader(*device, layout, tensors.get());
    const BlockPart dense = loader.read(source, 1);
    BlockWeights weights(*device, layout, device->compute_dtype(DType::bf16));
    loader.load(source.storage(), 1, dense, weights);
    const BlockTensor mask(*device, layout, DType::u8, "test");
    const std::vector<std::uint8_t> kept(layout.weights(), 1);
    device->copy_from_host(kept.data(), mask.all());

    const auto ranks = static_cast<std::size_t>(world().size());
    const Topology topology(ranks, 4, 1, 8, 8);
    const GroupContext context{.device = *device,
                               .group = tensors.get(),
                               .control = world(),
                               .topology = topology,
                               .block_group = topology.groups()[0],
                               .config = source.config(),
                               .layout = layout,
                               .tokens = 8};
    EXPECT_EQ(unchanged_weight_share(context, dense, DType::bf16, weights, mask), 1.0);
    // One matrix moves, another is removed.
    device->fill_zero(weights.matrices.matrix(layout.mlp.down));
    device->fill_zero(mask.matrix(layout.mlp.gate));
    const auto all = static_cast<double>(layout.weights() - layout.matrix(layout.mlp.gate).size());
    EXPECT_DOUBLE_EQ(unchanged_weight_share(context, dense, DType::bf16, weights, mask),
                     (all - static_cast<double>(layout.matrix(layout.mlp.down).size())) / all);
}

}  // namespace
}  // namespace espalier
