// A model folder must hold exactly the tensors that its config.json implies.
#include "src/weights/checkpoint_source.h"

#include "tests/support/expect.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/test_device.h"
#include "tests/support/tiny_model.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace espalier {
namespace {

using namespace support;

constexpr const char* q_weight = "model.layers.1.self_attn.q_proj.weight";

class CheckpointSourceTest : public testing::Test {
  protected:
    TemporaryFolder folder_;

    void expect_refused(const TinyModel& model, std::initializer_list<const char*> words) {
        model.write(folder_.path());
        expect_input_error(words, [&] { CheckpointSource{folder_.path()}; });
    }
};

TEST_F(CheckpointSourceTest, ReadsBlocksOfEveryFamilyBitForBit) {
    for (const std::string& family : families) {
        for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
            const TinyModel model = make_tiny_model(family, dtype);
            const TemporaryFolder folder;
            model.write(folder.path(), dtype == DType::bf16 ? 3 : 1);
            const CheckpointSource source(folder.path());
            EXPECT_EQ(source.storage().matrix_dtype, dtype);
            for (std::size_t block = 0; block < source.config().blocks.size(); ++block) {
                std::vector<std::byte> raw(source.storage().total_bytes(source.layout())), expected;
                source.read_block(block, raw);
                const auto append = [&](const std::string& name) {
                    const std::vector<std::byte> bytes =
                        stored_bytes(model.tensor(source.layout().tensor_name(block, name)));
                    expected.insert(expected.end(), bytes.begin(), bytes.end());
                };
                for (const StoredMatrix& matrix : source.layout().stored_matrices()) append(matrix.name);
                for (const VectorShape& vector : source.layout().vectors()) append(vector.name);
                EXPECT_TRUE(raw == expected) << family << " " << name_of(dtype) << " block " << block;
            }
        }
    }
}

TEST_F(CheckpointSourceTest, OuterTensors) {
    TinyModel model = make_tiny_model("llama", DType::bf16);
    model.tensor("lm_head.weight").dtype = DType::f32;  // outer tensors may have types of their own
    model.write(folder_.path());
    const CheckpointSource source(folder_.path());
    EXPECT_TRUE(source.has_own_head());
    EXPECT_TRUE(source.warnings().empty());
    EXPECT_EQ(source.outer_rows(OuterTensor::embedding), 40U);
    EXPECT_EQ(source.outer_columns(OuterTensor::embedding), 16U);
    EXPECT_EQ(source.outer_rows(OuterTensor::final_norm), 16U);
    EXPECT_EQ(source.outer_columns(OuterTensor::final_norm), 1U);
    EXPECT_EQ(source.outer_dtype(OuterTensor::head), DType::f32);
    std::vector<std::byte> rows(3 * 16 * 4);
    source.read_outer_rows(OuterTensor::head, 7, 3, rows);
    const std::vector<std::byte> all = stored_bytes(model.tensor("lm_head.weight"));
    EXPECT_TRUE(std::equal(rows.begin(), rows.end(), all.begin() + 7 * 16 * 4));
}

TEST_F(CheckpointSourceTest, TiedHeads) {
    make_tiny_model("llama", DType::f32, 1, {{"tie_word_embeddings", true}}).write(folder_.path());
    const CheckpointSource tied(folder_.path());
    EXPECT_FALSE(tied.has_own_head());
    std::vector<std::byte> head(16 * 4), embedding(16 * 4);
    tied.read_outer_rows(OuterTensor::head, 5, 1, head);
    tied.read_outer_rows(OuterTensor::embedding, 5, 1, embedding);
    EXPECT_EQ(head, embedding);

    TinyModel stored = make_tiny_model("llama");  // with a head
    stored.config["tie_word_embeddings"] = true;
    stored.write(folder_.path());
    const CheckpointSource both(folder_.path());
    EXPECT_TRUE(both.has_own_head());
    ASSERT_EQ(both.warnings().size(), 1U);
    EXPECT_NE(both.warnings()[0].find("lm_head.weight"), std::string::npos);
}

TEST_F(CheckpointSourceTest, RefusesMissingTensors) {
    for (const char* const name : {q_weight, "model.layers.0.input_layernorm.weight", "model.embed_tokens.weight",
                                   "model.norm.weight", "lm_head.weight"}) {
        TinyModel model = make_tiny_model("llama");
        model.remove(name);
        expect_refused(model, {name, "missing", "config.json implies"});
    }
    TinyModel qwen = make_tiny_model("qwen2");
    qwen.remove("model.layers.1.self_attn.k_proj.bias");
    expect_refused(qwen, {"model.layers.1.self_attn.k_proj.bias", "missing"});
}

TEST_F(CheckpointSourceTest, RefusesWrongShapes) {
    TinyModel model = make_tiny_model("llama");
    model.tensor(q_weight).shape = {8, 32};
    expect_refused(model, {q_weight, "[8, 32]", "[16, 16]"});
    model = make_tiny_model("llama");
    model.tensor("model.norm.weight").shape = {16, 1};
    expect_refused(model, {"model.norm.weight", "[16, 1]", "[16]"});
    model = make_tiny_model("llama");
    model.config["vocab_size"] = 41;
    expect_refused(model, {"model.embed_tokens.weight", "[40, 16]", "[41, 16]"});
    model = make_tiny_model("llama");
    model.config["intermediate_size"] = 32;
    expect_refused(model, {"mlp.gate_proj", "[24, 16]", "[32, 16]"});
}

TEST_F(CheckpointSourceTest, RefusesTensorsThatDoNotBelong) {
    TinyModel model = make_tiny_model("llama");
    model.tensors.push_back({"model.layers.0.self_attn.extra", DType::f32, {1}, {1}});
    expect_refused(model, {"model.layers.0.self_attn.extra", "does not belong"});
    model = make_tiny_model("llama");
    model.config["num_hidden_layers"] = 1;
    expect_refused(model, {"model.layers.1.", "1 blocks"});
    // Biases that config.json denies would be silently lost.
    model = make_tiny_model("llama-bias");
    model.config["attention_bias"] = false;
    expect_refused(model, {".bias", "does not belong"});
    model = make_tiny_model("qwen3");
    model.config["model_type"] = "qwen2";
    model.config["head_dim"] = 6;
    expect_refused(model, {"bias", "missing"});
}

TEST_F(CheckpointSourceTest, DropsTheBuffersOfOldCheckpoints) {
    TinyModel model = make_tiny_model("llama");
    model.tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", DType::f32, {2}, {1, 2}});
    model.write(folder_.path());
    EXPECT_NO_THROW(CheckpointSource{folder_.path()});
}

TEST_F(CheckpointSourceTest, RefusesMixedTypes) {
    TinyModel model = make_tiny_model("llama", DType::bf16);
    model.tensor(q_weight).dtype = DType::f32;
    expect_refused(model, {q_weight, "float32", "bfloat16"});
    model = make_tiny_model("llama", DType::bf16);
    model.tensor("model.layers.1.input_layernorm.weight").dtype = DType::f32;
    expect_refused(model, {"model.layers.1.input_layernorm.weight", "float32", "bfloat16"});
    // Norms of another type than the matrices, alike in all blocks, are common.
    model = make_tiny_model("llama", DType::bf16);
    for (const char* const block : {"0", "1"}) {
        model.tensor(std::string("model.layers.") + block + ".input_layernorm.weight").dtype = DType::f32;
    }
    model.write(folder_.path());
    EXPECT_NO_THROW(CheckpointSource{folder_.path()});
}

TEST_F(CheckpointSourceTest, RefusesTypesWeDoNotComputeOn) {
    TinyModel model = make_tiny_model("llama");
    model.write(folder_.path());
    std::string content = read_file(folder_.path() / "model.safetensors");
    const std::size_t place = content.find("\"F32\"", content.find(q_weight));
    content.replace(place, 5, "\"I32\"");
    write_file(folder_.path() / "model.safetensors", content);
    expect_input_error({q_weight, "I32"}, [&] { CheckpointSource{folder_.path()}; });
}

TEST_F(CheckpointSourceTest, OpenModelTakesModelFolders) {
    make_tiny_model("mistral").write(folder_.path());
    EXPECT_EQ(open_model(folder_.path())->config().model_type, "mistral");
    expect_input_error({"does not exist"}, [&] { static_cast<void>(open_model(folder_.path() / "absent")); });
}

/// The first matrix of block 1, whose values tell one copy of a model from another.
std::vector<std::byte> q_proj_of(const ModelSource& source) {
    std::vector<std::byte> raw(16 * 16 * 4);
    source.read_rows(1, {source.layout().attention.q, 0, 16}, raw);
    return raw;
}

TEST_F(CheckpointSourceTest, OfASingleFileBesideShardsTheOneThatFitsIsTaken) {
    const TinyModel single = make_tiny_model("llama", DType::f32, 1), sharded = make_tiny_model("llama", DType::f32, 2);
    const auto write_both = [&](const TinyModel& whole, const TinyModel& shards) {
        whole.write(folder_.path());
        shards.write(folder_.path(), 2);
        write_file(folder_.path() / "config.json", tiny_config("llama").dump());
    };
    const auto expect_taken = [&](const TinyModel& model, std::initializer_list<const char*> words) {
        const CheckpointSource source(folder_.path());
        EXPECT_TRUE(q_proj_of(source) == stored_bytes(model.tensor(q_weight)));
        ASSERT_EQ(source.notes().size(), 1U);
        for (const char* const word : words)
            EXPECT_NE(source.notes()[0].find(word), std::string::npos) << source.notes()[0];
        EXPECT_EQ(source.remarks(), std::vector<std::string>{"note: " + source.notes()[0]});
    };
    write_both(single, sharded);
    expect_taken(single, {"model.safetensors is used", "fit config.json too", "transformers"});

    TinyModel quantised = single;  // a stray copy in eight bits with its scales
    quantised.tensors.push_back({std::string(q_weight) + "_scale", DType::f32, {1}, {1}});
    write_both(quantised, sharded);
    expect_taken(sharded, {"shards of model.safetensors.index.json are used", "does not fit", "q_proj.weight_scale"});
    TinyModel smaller = single;
    smaller.tensor(q_weight).shape = {8, 32};
    write_both(smaller, sharded);
    expect_taken(sharded, {"shards of model.safetensors.index.json are used", "[8, 32]"});

    write_both(single, smaller);
    expect_taken(single, {"model.safetensors is used", "cannot be", "[8, 32]"});
    write_both(single, sharded);
    std::filesystem::remove(folder_.path() / "model-00002-of-00002.safetensors");
    expect_taken(single, {"model.safetensors is used", "model-00002-of-00002.safetensors"});

    write_both(quantised, smaller);
    expect_input_error({"neither fits", "q_proj.weight_scale", "does not belong", "[8, 32]", "[16, 16]"},
                       [&] { CheckpointSource{folder_.path()}; });
    write_file(folder_.path() / "config.json", tiny_config("llama", {{"model_type", "gpt2"}}).dump());
    expect_input_error({"gpt2"}, [&] { CheckpointSource{folder_.path()}; });
}

TEST_F(CheckpointSourceTest, AnUnmappedTensorThatIsNeededIsNamed) {
    make_tiny_model("llama").write(folder_.path(), 2);
    const auto index = folder_.path() / "model.safetensors.index.json";
    Json json = Json::parse(read_file(index));
    json["weight_map"].erase(q_weight);
    write_file(index, json.dump());
    expect_input_error({q_weight, "weight_map", "does not name it"}, [&] { CheckpointSource{folder_.path()}; });
}

TEST_F(CheckpointSourceTest, AFolderOfTheHubsCacheIsItsSnapshot) {
    const auto model = folder_.path() / "models--org--name", snapshot = model / "snapshots/0123abc";
    std::filesystem::create_directories(model / "refs");
    write_file(model / "refs/main", "0123abc");
    const TinyModel stored = make_tiny_model("llama");
    stored.write(model / "blobs");
    std::filesystem::create_directories(snapshot);
    for (const char* const name : {"config.json", "model.safetensors"}) {
        std::filesystem::create_symlink(std::filesystem::path("../../blobs") / name, snapshot / name);
    }
    const std::unique_ptr<ModelSource> source = open_model(model);
    EXPECT_TRUE(q_proj_of(*source) == stored_bytes(stored.tensor(q_weight)));
    EXPECT_EQ(source->path(), snapshot);
    ASSERT_EQ(source->notes().size(), 1U);
    EXPECT_NE(source->notes()[0].find("0123abc"), std::string::npos);
    EXPECT_EQ(source->identity(), open_model(snapshot)->identity());
    EXPECT_TRUE(open_model(snapshot)->notes().empty());
    std::filesystem::remove(model / "blobs/model.safetensors");
    expect_input_error({"0123abc", "model.safetensors", "not there"}, [&] { static_cast<void>(open_model(model)); });
}

}  // namespace
}  // namespace espalier
