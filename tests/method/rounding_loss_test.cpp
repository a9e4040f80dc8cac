// How much of an optimisation is left after rounding to the output type.
#include "src/method/rounding_loss.h"

#include "src/weights/model_source.h"
#include "tests/support/test_device.h"
#include "tests/support/tiny_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace espalier {
namespace {

using namespace support;

class UnchangedWeightShare : public testing::Test {
  protected:
    /// Share when every matrix reads as `dense` in `stored`, is `written` now and kept where `kept` says; the values
    /// repeat.
    double share(DType stored, const std::vector<float>& dense, DType output, const std::vector<float>& written,
                 const std::vector<std::uint8_t>& kept) const {
        const BlockStorage storage{stored, std::vector<DType>(layout_.vectors().size(), DType::f32)};
        const BlockLoader loader(*device_, layout_, *alone_);
        const BlockPart part(*device_, layout_, storage, loader.partition(), 0);
        part.for_each_slice([&](const RowSlice&, TensorView rows) {
            const std::vector<float> values = repeated(dense, rows.size());
            round_from_float(stored, values.data(), values.size(), rows.data);
        });
        const BlockWeights weights(*device_, layout_, DType::f32);
        const BlockTensor mask(*device_, layout_, DType::u8, "test");
        std::vector<float> values = repeated(written, layout_.weights());
        for (float& value : values) value = rounded(output, value);
        device_->copy_from_host(values.data(), weights.matrices.all());
        device_->copy_from_host(repeated(kept, layout_.weights()).data(), mask.all());
        const Topology topology(1, 1, 1, 1, 1);
        const GroupContext context{.device = *device_,
                                   .group = *alone_,
                                   .control = *alone_,
                                   .topology = topology,
                                   .block_group = topology.groups()[0],
                                   .config = config_,
                                   .layout = layout_,
                                   .tokens = 8};
        return unchanged_weight_share(context, part, output, weights, mask);
    }

    ModelConfig config_ = parse_tiny_config("qwen3");
    BlockLayout layout_{config_};
    std::unique_ptr<Device> device_ = make_test_device();
    std::unique_ptr<Communicator> alone_ = make_single_communicator();

  private:
    template <typename T>
    static std::vector<T> repeated(const std::vector<T>& pattern, std::size_t count) {
        std::vector<T> values(count);
        for (std::size_t i = 0; i < count; ++i) values[i] = pattern[i % pattern.size()];
        return values;
    }
    static float rounded(DType dtype, float value) {
        std::array<std::byte, 4> stored{};
        round_from_float(dtype, &value, 1, stored.data());
        float back = 0;
        widen_to_float(dtype, stored.data(), 1, &back);
        return back;
    }
};

TEST_F(UnchangedWeightShare, CountsSurvivingWeightsOnly) {
    EXPECT_DOUBLE_EQ(share(DType::bf16, {1, 2, 3, 4}, DType::bf16, {1, 0, 5, 4}, {1, 0, 1, 1}), 2.0 / 3.0);
    EXPECT_EQ(share(DType::bf16, {1, 2, 3, 4}, DType::bf16, {1, 2, 3, 4}, {0, 0, 0, 0}), 0);
}

TEST_F(UnchangedWeightShare, ComparesWithTheDenseWeightsAsTheyWouldBeWritten) {
    // A step of 1e-4 on weights near 1 is below bfloat16's spacing of 2^-7, one of 0.01 is not.
    EXPECT_DOUBLE_EQ(
        share(DType::f32, {1.0F, 1.0F, 1.001F, 2.0F}, DType::bf16, {1.0001F, 1.01F, 1.0F, 2.0F}, {1, 1, 1, 0}),
        2.0 / 3.0);
    EXPECT_DOUBLE_EQ(share(DType::f16, {1, 1}, DType::f32, {1, 1.0001F}, {1, 1}), 0.5);
}

}  // namespace
}  // namespace espalier
