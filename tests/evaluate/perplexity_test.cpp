// Perplexity against its definition in float64.
#include "src/evaluate/perplexity.h"

#include "src/weights/checkpoint_source.h"
#include "tests/support/expect.h"
#include "tests/support/measure.h"
#include "tests/support/reference_likelihoods.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/test_device.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using namespace support;

class PerplexityTest : public testing::Test {
  protected:
    TemporaryFolder folder_;
    std::unique_ptr<Device> device_ = make_test_device(1);
    std::vector<std::int32_t> tokens_;

    PerplexityTest() {
        Random random(8);
        for (int i = 0; i < 53; ++i) tokens_.push_back(static_cast<std::int32_t>(random.below(40)));
    }
    Perplexity measure(const TinyModel& model, std::size_t length) {
        model.write(folder_.path());
        return measure_from(CheckpointSource(folder_.path()), *device_, length, StoragePlace::device);
    }
    Perplexity measure_from(const ModelSource& source, Device& device, std::size_t length, StoragePlace place) {
        const auto windows = windows_of_text(source.config(), tokens_, length);
        return perplexity_of(measure_alone(device, source, windows, place), length);
    }
};

TEST_F(PerplexityTest, EqualsTheDefinitionForEveryFamily) {
    for (const std::string& family : families) {
        const TinyModel model = make_tiny_model(family);
        const Perplexity found = measure(model, 10);
        EXPECT_EQ(found.windows, 5U) << "the tail of 3 tokens is dropped";
        const double expected = reference_loss(model, tokens_, 10);
        // float32 hidden states err by some u through two blocks; the mean of 45 losses of order 4 errs by less.
        EXPECT_NEAR(found.loss, expected, 100 * unit_roundoff * expected) << family;
        EXPECT_EQ(found.perplexity, std::exp(found.loss));
    }
}

TEST_F(PerplexityTest, TiedHeads) {
    const TinyModel model = make_tiny_model("llama", DType::f32, 2, {{"tie_word_embeddings", true}});
    const double expected = reference_loss(model, tokens_, 26);
    EXPECT_NEAR(measure(model, 26).loss, expected, 100 * unit_roundoff * expected);
}

TEST_F(PerplexityTest, VocabulariesOfSeveralPanels) {
    const TinyModel model = make_tiny_model("llama", DType::f32, 3, {{"vocab_size", 9000}, {"num_hidden_layers", 1}});
    for (std::int32_t& token : tokens_) token *= 225;
    const double expected = reference_loss(model, tokens_, 10);
    EXPECT_NEAR(measure(model, 10).loss, expected, 100 * unit_roundoff * expected);
}

TEST_F(PerplexityTest, SameDigitsFromHostMemory) {
    // Of two windows in a product, and of one that has a product for itself.
    tokens_.resize(test_device_is_gpu() ? 2 * 300 : 3 * 300);  // an emulated GPU takes its time
    for (std::size_t i = 0; i < tokens_.size(); ++i) tokens_[i] = static_cast<std::int32_t>(i * i % 40);
    make_tiny_model("mistral", DType::f32, 2, {{"num_hidden_layers", 1}, {"max_position_embeddings", 1024}})
        .write(folder_.path());
    const CheckpointSource source(folder_.path());
    for (const std::size_t length : {200U, 300U}) {
        if (test_device_is_gpu() && length == 200) continue;
        EXPECT_EQ(measure_from(source, *device_, length, StoragePlace::host).loss,
                  measure_from(source, *device_, length, StoragePlace::device).loss);
    }
}

TEST_F(PerplexityTest, RefusesWhatItCannotMeasure) {
    const TinyModel model = make_tiny_model("llama");
    expect_input_error({"53", "one window of 60"}, [&] { measure(model, 60); });
    expect_input_error({"--sequence-length", "at least 2"}, [&] { measure(model, 1); });
    expect_input_error({"max_position_embeddings"}, [&] {
        tokens_.resize(200, 1);
        measure(model, 65);
    });
}

TEST_F(PerplexityTest, RefusesLogitsThatOverflow) {
    TinyModel model = make_tiny_model("llama");
    for (float& value : model.tensor("lm_head.weight").values) value *= 1e38F;
    for (float& value : model.tensor("model.norm.weight").values) value *= 1e10F;
    expect_input_error({"not finite"}, [&] { measure(model, 10); });
}

}  // namespace
}  // namespace espalier
