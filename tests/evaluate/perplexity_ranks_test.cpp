// Perplexity has the same digits on every number of ranks: those of the windows one after the other.
#include "src/evaluate/perplexity.h"
#include "src/model/decoder_block.h"
#include "src/prune/block_loader.h"
#include "src/weights/checkpoint_source.h"
#include "src/weights/embedding.h"
#include "tests/support/ranks.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/test_device.h"
#include "tests/support/tiny_model.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using namespace support;

/// The loss of one window by the same device operations, without the streaming around them.
double window_loss(Device& device, const CheckpointSource& source, std::span<const std::int32_t> tokens) {
    const ModelConfig& config = source.config();
    const std::size_t length = tokens.size(), hidden = config.hidden_size, vocabulary = config.vocabulary;
    const Tensor x = make_poisoned(device, length, hidden), normed = make_poisoned(device, length, hidden);
    embed_tokens(device, source, tokens, x);
    DecoderBlock decoder(device, config, length, Passes::forward_only, DType::f32);
    BlockWeights weights(device, source.layout(), DType::f32);
    const auto alone = make_single_communicator();
    const BlockLoader loader(device, source.layout(), *alone);
    for (std::size_t block = 0; block < config.blocks; ++block) {
        loader.load(source.storage(), block, loader.read(source, block), weights);
        decoder.forward(weights, x, x, nullptr);
    }
    std::vector<float> norm(hidden), head(vocabulary * hidden);
    source.read_outer_rows(OuterTensor::final_norm, 0, hidden, std::as_writable_bytes(std::span(norm)));
    source.read_outer_rows(OuterTensor::head, 0, vocabulary, std::as_writable_bytes(std::span(head)));
    const Tensor inverse = make_poisoned(device, 1, length), logits = make_poisoned(device, length - 1, vocabulary);
    device.rms_norm(x, upload(device, 1, hidden, norm), config.rms_norm_epsilon, normed, inverse);
    device.linear(normed.view().row_range(0, length - 1), upload(device, vocabulary, hidden, head), {}, logits);
    const Tensor largest = make_poisoned(device, 1, length - 1), sum = make_poisoned(device, 1, length - 1),
                 target = make_poisoned(device, 1, length - 1);
    device.start_cross_entropy(largest, sum, target);
    device.cross_entropy_panel(logits, 0, tokens.subspan(1), largest, sum, target);
    const std::vector<float> maxima = download(device, largest), sums = download(device, sum),
                             targets = download(device, target);
    double loss = 0;
    for (std::size_t i = 0; i + 1 < length; ++i) {
        loss +=
            std::log(static_cast<double>(sums[i])) + static_cast<double>(maxima[i]) - static_cast<double>(targets[i]);
    }
    return loss / static_cast<double>(length - 1);
}

TEST(PerplexityOnRanks, SameDigits) {
    const TemporaryFolder folder;  // every rank its own
    make_tiny_model("qwen3").write(folder.path());
    const CheckpointSource source(folder.path());
    const auto device = make_test_device(1);
    Random random(8);
    std::vector<std::int32_t> tokens;
    for (int i = 0; i < 53; ++i) tokens.push_back(static_cast<std::int32_t>(random.below(40)));
    const Perplexity found = measure_perplexity(session(), *device, source, tokens, 10, [](const std::string&) {});
    double sum = 0;
    for (std::size_t w = 0; w < 5; ++w) sum += window_loss(*device, source, std::span(tokens).subspan(w * 10, 10));
    EXPECT_EQ(found.loss, sum / 5);
    EXPECT_EQ(found.windows, 5U);
}

}  // namespace
}  // namespace espalier
