// The recount of a pruned model notices what is wrong in its files.
#include "src/evaluate/inspection.h"

#include "io/hdf5_handle.h"
#include "src/weights/run_source.h"
#include "tests/support/expect.h"
#include "tests/support/prune_run.h"

#include <gtest/gtest.h>

#include <cstring>

namespace espalier {
namespace {

using namespace support;

class InspectionTest : public testing::Test {
  protected:
    TemporaryFolder folder_;
    std::filesystem::path model_ = folder_.path() / "model", run_ = folder_.path() / "run";
    Session session_;

    void prune(Method method) {
        make_tiny_model("qwen2").write(model_);
        prune_to_folder(session_, tiny_options(model_, run_, method));
    }
    Inspection inspect(bool with_dense) const {
        return inspect_model(run_, with_dense ? std::optional(model_) : std::nullopt, [](const std::string&) {});
    }
    static void expect_fault(const Inspection& inspection, const char* words) {
        std::string all;
        for (const std::string& fault : inspection.faults) all += fault + "\n";
        EXPECT_NE(all.find(words), std::string::npos) << "'" << words << "' is not in: " << all;
    }
};

TEST_F(InspectionTest, FindsNothingWrongInARun) {
    for (const Method method : {Method::wanda, Method::wanda_plus_plus, Method::sparsegpt}) {
        std::filesystem::remove_all(run_);
        prune(method);
        const Inspection inspection = inspect(true);
        EXPECT_TRUE(inspection.faults.empty()) << name_of(method) << ": " << inspection.faults.front();
        ASSERT_EQ(inspection.blocks.size(), 2U);
        for (const BlockInspection& block : inspection.blocks) {
            EXPECT_TRUE(block.pruned);
            for (const double share : block.zero_share) EXPECT_EQ(share, 0.5);
        }
        EXPECT_FALSE(inspection.checked.empty());
    }
}

TEST_F(InspectionTest, NoticesAChangedFile) {
    prune(Method::wanda);
    const auto path = run_ / "blocks/00001.h5";
    std::string content = read_file(path);
    write_file(path, content + "x");
    expect_fault(inspect(false), "00001.h5 is not the file that the manifest names");
}

TEST_F(InspectionTest, NoticesMasksThatDoNotFitTheWeights) {
    prune(Method::wanda);
    // Block 1 with a weight where the mask has none, written anew so that HDF5's own checksums hold.
    const RunSource source(run_);
    const RunFolder run(run_);
    std::vector<std::byte> raw(source.storage().total_bytes(source.layout()));
    source.read_block(1, raw);
    std::vector<float> weights(source.layout().weights());
    std::memcpy(weights.data(), raw.data(), weights.size() * 4);
    std::size_t removed = 0;
    while (weights[removed] != 0) ++removed;
    const float value = 1;
    std::memcpy(raw.data() + removed * 4, &value, 4);
    std::vector<std::byte> mask(16 * 2);
    Hdf5Reader(run.block_path(1)).read("/model/layers/1/self_attn/q_proj/mask", mask);
    std::vector<FileTensor> tensors;
    std::size_t offset = 0;
    const auto add = [&](const std::string& name, std::vector<std::uint64_t> shape, std::size_t bytes) {
        tensors.push_back({source.layout().tensor_name(1, name), DType::f32, std::move(shape),
                           std::span<const std::byte>(raw).subspan(offset, bytes)});
        offset += bytes;
    };
    for (const MatrixShape& matrix : source.layout().matrices()) {
        add(std::string(matrix.name) + ".weight", {matrix.rows, matrix.columns}, matrix.size() * 4);
    }
    for (const VectorShape& vector : source.layout().vectors()) add(vector.name, {vector.size}, vector.size * 4);
    tensors.push_back({source.layout().tensor_name(1, "self_attn.q_proj.mask"), DType::u8, {16, 2}, mask});
    Manifest manifest = Manifest::read(run);
    manifest.blocks.at(1).file = run.commit_block(1, tensors, {}, [](const std::filesystem::path&) {});
    manifest.write(run);
    expect_fault(inspect(false), "is not +0.0");
}

TEST_F(InspectionTest, NoticesWhatPruningMustNotTouch) {
    prune(Method::wanda);
    for (const auto& [name, words] : {std::pair<const char*, const char*>{"model.layers.0.input_layernorm.weight",
                                                                          "block 0: a norm or bias differs"},
                                      {"model.embed_tokens.weight", "'model.embed_tokens.weight' differs"},
                                      {"model.layers.1.self_attn.k_proj.bias", "block 1: a norm or bias differs"},
                                      {"model.norm.weight", "'model.norm.weight' differs"},
                                      {"lm_head.weight", "'lm_head.weight' differs"}}) {
        TinyModel changed = make_tiny_model("qwen2");
        changed.tensor(name).values.back() += 1;
        changed.write(model_);
        expect_fault(inspect(true), words);
    }
    TinyModel changed = make_tiny_model("qwen2");
    for (float& value : changed.tensor("model.layers.1.mlp.up_proj.weight").values) value += 1;
    changed.write(model_);
    expect_fault(inspect(true), "surviving weight that differs");
}

TEST_F(InspectionTest, RefusesModelsOfOtherDepth) {
    prune(Method::wanda);
    make_tiny_model("qwen2", DType::f32, 1, {{"num_hidden_layers", 3}}).write(model_);
    expect_input_error({"2 and 3 decoder blocks"}, [&] { static_cast<void>(inspect(true)); });
}

}  // namespace
}  // namespace espalier
