// Rows of the embedding by token id.
#include "src/weights/embedding.h"

#include "src/weights/checkpoint_source.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/test_device.h"
#include "tests/support/tiny_model.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using namespace support;

void expect_rows(const Json& changes, DType dtype, std::size_t tokens) {
    const auto device = make_test_device();
    const TinyModel model = make_tiny_model("llama", dtype, 3, changes);
    const TemporaryFolder folder;
    model.write(folder.path());
    const CheckpointSource source(folder.path());
    const std::size_t hidden = source.config().hidden_size;
    const TinyTensor& table = model.tensor("model.embed_tokens.weight");
    std::vector<float> widened(table.values.size());
    widen_to_float(dtype, stored_bytes(table).data(), widened.size(), widened.data());
    Random random(4);
    std::vector<std::int32_t> ids(tokens);
    for (auto& id : ids) id = static_cast<std::int32_t>(random.below(source.config().vocabulary));
    ids.front() = static_cast<std::int32_t>(source.config().vocabulary) - 1;
    ids.back() = 0;
    const Tensor states = make_poisoned(*device, tokens, hidden);
    embed_tokens(*device, source, ids, states);
    const std::vector<float> found = download(*device, states);
    for (std::size_t t = 0; t < tokens; ++t) {
        for (std::size_t j = 0; j < hidden; ++j) {
            ASSERT_EQ(found[t * hidden + j], widened[static_cast<std::size_t>(ids[t]) * hidden + j]) << t << ", " << j;
        }
    }
}

TEST(Embedding, EveryTokensRow) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
        for (const std::size_t tokens : {1U, 2U, 200U}) expect_rows(Json::object(), dtype, tokens);
    }
}

TEST(Embedding, TablesOfSeveralPanels) {
    // A panel of 4 MiB holds 2,048 of the 5,000 rows.
    expect_rows({{"hidden_size", 512}, {"vocab_size", 5000}, {"num_hidden_layers", 1}}, DType::f32, 60);
}

}  // namespace
}  // namespace espalier
