// What is generated step by step is what the whole sequence, computed at once in float64, says.
#include "src/evaluate/generation.h"

#include "src/weights/checkpoint_source.h"
#include "tests/support/expect.h"
#include "tests/support/reference_likelihoods.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/test_device.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace espalier {
namespace {

using namespace support;

class GenerationTest : public testing::Test {
  protected:
    GenerationTest() {
        options_.samples = 5;
        options_.sequence_length = 9;
        options_.batch = 2;
        options_.prompts = {1};
    }
    std::vector<std::int32_t> generate(const TinyModel& model) {
        model.write(folder_.path());
        const CheckpointSource source(folder_.path());
        const auto device = make_test_device(1);
        const auto alone = make_single_communicator();
        return generate_tokens(
            {.device = *device, .group = *alone, .control = *alone, .source = source, .progress = say_nothing_},
            options_);
    }

    TemporaryFolder folder_;
    GenerationOptions options_;
    SayProgress say_nothing_ = [](const std::string&) {};
};

TEST_F(GenerationTest, GreedyTokensAreTheLikeliestInEveryFamily) {
    options_.rule.temperature = 0;
    options_.samples = 2;
    options_.prompts = {3, 1, 4, 1, 5, 9};
    options_.prompt_length = 3;
    options_.prompts_are_part = true;
    for (const std::string& family : families) {
        const TinyModel model = make_tiny_model(family);
        const std::vector<std::int32_t> ids = generate(model);
        ASSERT_EQ(ids.size(), 18U);
        for (std::size_t sample = 0; sample < 2; ++sample) {
            const std::span<const std::int32_t> of_sample = std::span(ids).subspan(sample * 9, 9);
            for (std::size_t t = 0; t < 3; ++t) EXPECT_EQ(of_sample[t], options_.prompts[sample * 3 + t]);
            const auto predictions = reference_predictions(model, of_sample);
            for (std::size_t t = 3; t < 9; ++t)
                EXPECT_TRUE(predictions[t - 1].most_likely) << family << ", token " << t;
        }
    }
}

TEST_F(GenerationTest, DrawnTokensAreAsLikelyAsTheModelFindsThem) {
    options_.samples = 200;
    options_.batch = 64;
    const TinyModel model = make_tiny_model("llama");
    const std::vector<std::int32_t> ids = generate(model);
    double loss = 0, square = 0, entropy = 0;
    std::size_t count = 0;
    for (std::size_t sample = 0; sample < options_.samples; ++sample) {
        std::vector<std::int32_t> with_begin = {1};
        with_begin.insert(with_begin.end(), ids.begin() + static_cast<std::ptrdiff_t>(sample * 9),
                          ids.begin() + static_cast<std::ptrdiff_t>(sample * 9 + 9));
        for (const ReferencePrediction& one : reference_predictions(model, with_begin)) {
            loss += one.loss;
            square += one.loss * one.loss;
            ++count;
        }
        // The mean loss of what can be drawn first: the entropy of the same distribution, for all samples.
        if (sample > 0) continue;
        for (std::int32_t token = 0; static_cast<std::size_t>(token) < model.config["vocab_size"].get<std::size_t>();
             ++token) {
            const double of_token = reference_predictions(model, std::vector<std::int32_t>{1, token})[0].loss;
            entropy += std::exp(-of_token) * of_token;
        }
    }
    const double mean = loss / static_cast<double>(count);
    const double error = std::sqrt((square / static_cast<double>(count) - mean * mean) / static_cast<double>(count));
    EXPECT_NEAR(mean, entropy, 0.15 * entropy + 5 * error) << "later tokens have about the entropy of the first";
}

TEST_F(GenerationTest, SixteenBitModelsSayTheSame) {
    options_.rule.temperature = 0;
    // On a GPU the passes compute in 16 bits, so that a near tie may fall otherwise: most tokens are the likeliest.
    const TinyModel model = make_tiny_model("llama", DType::bf16);
    const std::vector<std::int32_t> ids = generate(model);
    std::vector<std::int32_t> with_begin = {1};
    with_begin.insert(with_begin.end(), ids.begin(), ids.begin() + 9);
    std::size_t likeliest = 0;
    for (const ReferencePrediction& one : reference_predictions(model, with_begin))
        likeliest += one.most_likely ? 1 : 0;
    EXPECT_GE(likeliest, 8U);
}

TEST_F(GenerationTest, TokensDoNotDependOnTheNumberOfSamples) {
    const TinyModel model = make_tiny_model("qwen3");
    const std::vector<std::int32_t> all = generate(model);
    options_.samples = 4;  // two batches of the same size
    const std::vector<std::int32_t> fewer = generate(model);
    EXPECT_TRUE(std::equal(fewer.begin(), fewer.end(), all.begin()));
    options_.rule.seed = 1;
    EXPECT_NE(generate(model), fewer);
}

TEST_F(GenerationTest, StagesAreTheFewestThatHoldTheModel) {
    make_tiny_model("llama").write(folder_.path());
    const CheckpointSource source(folder_.path());
    const auto stages = [&](std::size_t ranks, std::size_t bytes) {
        return choose_stages(source, DType::f32, options_, ranks, bytes, "use more ranks or a smaller --batch");
    };
    EXPECT_EQ(stages(6, std::size_t{1} << 30), 1U);
    std::size_t enough = 1;
    const auto fits = [&](std::size_t bytes) {
        try {
            return stages(6, bytes) > 0;
        } catch (const ResourceError&) {
            return false;
        }
    };
    while (!fits(enough)) enough += 1000;
    EXPECT_GT(stages(6, enough), 1U) << "the least memory needs several ranks";
    expect_error(ExitStatus::resources, {"more ranks", "--batch"}, [&] { stages(6, 1000); });
}

TEST(PromptsTest, FromTheWholeVocabularyEvenly) {
    const auto prompts = prompts_from_vocabulary(3000, 10, 7);
    std::vector<int> counts(10);
    for (const std::int32_t token : prompts) ++counts.at(static_cast<std::size_t>(token));
    for (const int count : counts) EXPECT_NEAR(count, 300, 90);
    EXPECT_EQ(prompts_from_vocabulary(5, 10, 7), std::vector<std::int32_t>(prompts.begin(), prompts.begin() + 5));
    EXPECT_NE(prompts_from_vocabulary(3000, 10, 8), prompts);
}

}  // namespace
}  // namespace espalier
