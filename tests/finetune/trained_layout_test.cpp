// The table of what is trained, and its parts.
#include "src/finetune/trained_layout.h"

#include "tests/support/tiny_model.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using namespace support;

class TrainedLayoutTest : public testing::Test {
  protected:
    ModelConfig config_ = parse_tiny_config("qwen3");
    BlockLayout layout_{config_};
    FinetuneOptions options_;
};

TEST_F(TrainedLayoutTest, HoldsAAndBOfEachTargetWithoutGaps) {
    options_.rank = 4;
    options_.targets = {"q_proj", "down_proj"};
    const TrainedLayout trained = TrainedLayout::of_block(layout_, options_);
    std::size_t offset = 0;
    std::vector<std::string> names;
    for (const TrainedTensor& tensor : trained.tensors()) {
        EXPECT_EQ(tensor.offset, offset);
        offset += tensor.size();
        names.push_back(tensor.name);
    }
    EXPECT_EQ(offset, trained.size());
    EXPECT_EQ(names, (std::vector<std::string>{"self_attn.q_proj.lora_A.weight", "self_attn.q_proj.lora_B.weight",
                                               "mlp.down_proj.lora_A.weight", "mlp.down_proj.lora_B.weight"}));
    EXPECT_EQ(trained.find(TrainedKind::lora_a, layout_.attention.k), nullptr);
    EXPECT_EQ(trained.find(TrainedKind::lora_b, layout_.mlp.down)->columns, 4U);
    EXPECT_EQ(trained.find(*layout_.attention.query_norm), nullptr);
    EXPECT_EQ(TrainedLayout::of_end(layout_, options_, config_.hidden_size).size(), 0U);
}

TEST_F(TrainedLayoutTest, NormsComeBehindTheMatrices) {
    options_.train = TrainedPart::masked;
    options_.train_norms = true;
    const TrainedLayout trained = TrainedLayout::of_block(layout_, options_);
    std::size_t norms = 0;
    for (const VectorShape& vector : layout_.vectors()) norms += vector.size;
    EXPECT_EQ(trained.size(), layout_.weights() + norms);
    EXPECT_EQ(trained.find(*layout_.attention.query_norm)->kind, TrainedKind::gain);
    EXPECT_EQ(TrainedLayout::of_end(layout_, options_, config_.hidden_size).size(), config_.hidden_size);
}

TEST_F(TrainedLayoutTest, PartsAreWholeChunksAndTogetherEverything) {
    options_.train = TrainedPart::masked;
    const TrainedLayout trained = TrainedLayout::of_block(layout_, options_);
    for (const std::size_t ranks : {1U, 2U, 3U, 7U, 100U}) {
        const PartOffsets parts = trained.parts(ranks);
        ASSERT_EQ(parts.size(), ranks + 1);
        EXPECT_EQ(parts.front(), 0U);
        EXPECT_EQ(parts.back(), trained.size());
        for (std::size_t r = 0; r < ranks; ++r) {
            EXPECT_LE(parts[r], parts[r + 1]);
            EXPECT_TRUE(parts[r] % trained.chunk() == 0 || parts[r] == trained.size());
        }
        for (const TrainedTensor& tensor : trained.tensors()) {
            const PartOffsets in_tensor = TrainedLayout::parts_in(tensor, parts);
            EXPECT_EQ(in_tensor.front(), 0U);
            EXPECT_EQ(in_tensor.back(), tensor.size());
        }
    }
}

}  // namespace
}  // namespace espalier
