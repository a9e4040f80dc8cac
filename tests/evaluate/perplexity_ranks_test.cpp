// Perplexity has the same digits on every number of ranks: those of all windows at their places in one product.
#include "src/blocks/block_loader.h"
#include "src/evaluate/perplexity.h"
#include "src/model/decoder_block.h"
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

constexpr std::size_t length = 10, windows = 5, windows_at_once = windows;  // all of so few

/// The mean loss of the windows by the same device operations, without ranks and without the streaming around them.
double mean_loss(Device& device, const CheckpointSource& source, std::span<const std::int32_t> tokens) {
    const ModelConfig& config = source.config();
    const std::size_t rows = windows_at_once * length, hidden = config.hidden_size, vocabulary = config.vocabulary;
    const Tensor x = make_poisoned(device, rows, hidden), normed = make_poisoned(device, rows, hidden);
    device.fill_zero(x);
    embed_tokens(device, source, tokens, x.view().row_range(0, tokens.size()));
    DecoderBlock decoder(device, config, length, Passes::forward_only, DType::f32, windows_at_once);
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
    const Tensor inverse = make_poisoned(device, 1, rows), logits = make_poisoned(device, rows, vocabulary);
    device.rms_norm(x, upload(device, 1, hidden, norm), config.rms_norm_epsilon, normed, inverse);
    device.linear(normed, upload(device, vocabulary, hidden, head), {}, logits);
    const Tensor largest = make_poisoned(device, 1, length - 1), sum = make_poisoned(device, 1, length - 1),
                 target = make_poisoned(device, 1, length - 1);
    double mean = 0;
    for (std::size_t w = 0; w < windows; ++w) {
        device.start_cross_entropy(largest, sum, target);
        device.cross_entropy_panel(logits.view().row_range(w * length, (w + 1) * length - 1), 0,
                                   tokens.subspan(w * length + 1, length - 1), largest, sum, target);
        const std::vector<float> maxima = download(device, largest), sums = download(device, sum),
                                 targets = download(device, target);
        double loss = 0;
        for (std::size_t i = 0; i + 1 < length; ++i) {
            loss += std::log(static_cast<double>(sums[i])) + static_cast<double>(maxima[i]) -
                    static_cast<double>(targets[i]);
        }
        mean += loss / static_cast<double>(length - 1);
    }
    return mean / static_cast<double>(windows);
}

TEST(PerplexityOnRanks, SameDigits) {
    const TemporaryFolder folder;  // every rank its own
    make_tiny_model("qwen3").write(folder.path());
    const CheckpointSource source(folder.path());
    const auto device = make_test_device(1);
    Random random(8);
    std::vector<std::int32_t> tokens;
    for (int i = 0; i < 53; ++i) tokens.push_back(static_cast<std::int32_t>(random.below(40)));
    const Perplexity found = measure_perplexity(session(), *device, source, tokens, length, [](const std::string&) {});
    EXPECT_EQ(found.loss, mean_loss(*device, source, std::span(tokens).first(windows * length)));
    EXPECT_EQ(found.windows, windows);
}

}  // namespace
}  // namespace espalier
