// Every rank reads its own rows, and all ranks have the whole block afterwards.
#include "mpi/tensor_communicator.h"
#include "src/blocks/block_loader.h"
#include "src/weights/synthetic_source.h"
#include "tests/support/ranks.h"
#include "tests/support/test_device.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using namespace support;

TEST(BlockLoaderOnRanks, TogetherTheyReadEveryRowOnceAndHaveTheWholeBlock) {
    const SyntheticSource source("synthetic:llama-tiny");
    const BlockLayout& layout = source.layout();
    const auto device = make_test_device(1);
    const TensorCommunicator tensors(world(), *device);
    const BlockLoader loader(*device, layout, tensors.get());
    const BlockPart part = loader.read(source, 2);
    std::size_t mine = 0;
    part.for_each_slice([&](const RowSlice&, TensorView rows) { mine += rows.size(); });
    std::size_t all = 0;
    for (const std::size_t count : world().all_gather_value(mine)) all += count;
    EXPECT_EQ(all, layout.weights());

    BlockWeights weights(*device, layout, DType::f32);
    device->fill_zero(weights.matrices.all());
    loader.load(source.storage(), 2, part, weights);
    std::vector<std::byte> stored(source.storage().total_bytes(layout));
    source.read_block(2, stored);
    std::vector<float> expected(layout.weights());
    widen_to_float(source.storage().matrix_dtype, stored.data(), expected.size(), expected.data());
    EXPECT_EQ(download(*device, weights.matrices.all()), expected);
    EXPECT_EQ(download(*device, weights.vector(*source.layout().attention.input_norm)), std::vector<float>(64, 1.0F));
}

}  // namespace
}  // namespace espalier
