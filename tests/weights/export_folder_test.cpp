// A completed run read back, and exported as a Hugging Face folder.
#include "src/weights/export_folder.h"

#include "src/weights/checkpoint_source.h"
#include "src/weights/run_source.h"
#include "tests/support/expect.h"
#include "tests/support/prune_run.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using namespace support;

class ExportTest : public testing::Test {
  protected:
    TemporaryFolder folder_;
    std::filesystem::path model_ = folder_.path() / "model", run_ = folder_.path() / "run",
                          output_ = folder_.path() / "out";
    Session session_;
    std::vector<std::string> progress_;

    void export_it(const std::optional<std::filesystem::path>& dense = {}) {
        export_run(*open_model(run_), output_, dense,
                   [&](const std::string& sentence) { progress_.push_back(sentence); });
    }
    PruneOptions options(Method method) const { return tiny_options(model_, run_, method); }
};

std::vector<std::byte> block_of(const ModelSource& source, std::size_t block) {
    std::vector<std::byte> raw(source.storage().total_bytes(source.layout()));
    source.read_block(block, raw);
    return raw;
}

void expect_same_outer(const ModelSource& a, const ModelSource& b) {
    for (const OuterTensor tensor : {OuterTensor::embedding, OuterTensor::final_norm, OuterTensor::head}) {
        ASSERT_EQ(a.outer_dtype(tensor), b.outer_dtype(tensor));
        ASSERT_EQ(a.outer_rows(tensor), b.outer_rows(tensor));
        std::vector<std::byte> first(a.outer_rows(tensor) * a.outer_columns(tensor) * bytes_of(a.outer_dtype(tensor))),
            second(first);
        a.read_outer_rows(tensor, 0, a.outer_rows(tensor), first);
        b.read_outer_rows(tensor, 0, b.outer_rows(tensor), second);
        EXPECT_TRUE(first == second) << a.layout().outer_name(tensor);
    }
}

TEST_F(ExportTest, HoldsTheRunsBlocksAndTheDenseRest) {
    for (const std::string& family : families) {
        for (const std::size_t shards : {1U, 3U}) {
            for (const auto& path : {model_, run_, output_}) std::filesystem::remove_all(path);
            make_tiny_model(family, DType::bf16).write(model_, shards);
            PruneOptions pruning = options(Method::wanda);
            pruning.output_dtype = DType::bf16;
            prune_to_folder(session_, pruning);
            export_it();
            const CheckpointSource exported(output_), dense(model_);
            const RunSource run(run_);
            EXPECT_EQ(exported.folder().shard_names(), dense.folder().shard_names());
            EXPECT_EQ(exported.folder().sharded(), shards > 1);
            EXPECT_EQ(exported.config_text(), dense.config_text());
            for (std::size_t block = 0; block < 2; ++block) {
                EXPECT_TRUE(block_of(exported, block) == block_of(run, block)) << family;
                EXPECT_FALSE(block_of(exported, block) == block_of(dense, block)) << family;
            }
            expect_same_outer(exported, dense);
            expect_same_outer(run, dense);
            EXPECT_EQ(read_file(output_ / "tokenizer.json"), "{\"tiny\": true}");
            EXPECT_FALSE(std::filesystem::exists(output_.string() + ".partial"));
        }
    }
}

TEST_F(ExportTest, AnOverlaysTensorsAreUsedAndTheStaleCopiesLeftOut) {
    const TinyModel base = make_tiny_model("llama", DType::bf16, 1), edited = make_tiny_model("llama", DType::bf16, 2);
    base.write(model_, 2);
    const std::string matrix = "model.layers.0.mlp.up_proj.weight", head = "lm_head.weight";
    TinyModel overlay{base.config, {edited.tensor(matrix), edited.tensor(head)}};
    const auto apart = folder_.path() / "apart";
    overlay.write(apart);
    std::filesystem::rename(apart / "model.safetensors", model_ / "overlay.safetensors");
    Json index = Json::parse(read_file(model_ / "model.safetensors.index.json"));
    index["weight_map"][matrix] = index["weight_map"][head] = "overlay.safetensors";
    write_file(model_ / "model.safetensors.index.json", index.dump());
    PruneOptions pruning = options(Method::magnitude);
    pruning.output_dtype = DType::bf16;
    prune_to_folder(session_, pruning);
    const std::vector<std::string> remarks = export_run(*open_model(run_), output_, {}, [](const std::string&) {});
    ASSERT_EQ(remarks.size(), 1U);
    EXPECT_EQ(remarks[0].find("warning: 2 stored tensor(s) are ignored"), 0U) << remarks[0];

    const CheckpointSource exported(output_), dense(model_);
    EXPECT_TRUE(exported.folder().warnings().empty()) << "stale copies were written";
    EXPECT_EQ(exported.folder().shard_names(), dense.folder().shard_names());
    EXPECT_EQ(exported.folder().file_of(exported.folder().tensor(head)).filename(), "overlay.safetensors");
    expect_same_outer(exported, dense);
    std::vector<std::byte> stored(edited.tensor(head).values.size() * 2), kept(edited.tensor(matrix).values.size() * 2);
    exported.folder().read(head, 0, stored);
    EXPECT_TRUE(stored == stored_bytes(edited.tensor(head)));
    exported.folder().read(matrix, 0, kept);
    const std::vector<std::byte> whole = stored_bytes(edited.tensor(matrix));
    std::size_t survivors = 0;
    for (std::size_t i = 0; i < kept.size(); i += 2) {
        if (kept[i] == std::byte{0} && kept[i + 1] == std::byte{0}) continue;
        ++survivors;
        EXPECT_TRUE(kept[i] == whole[i] && kept[i + 1] == whole[i + 1]) << "weight " << i / 2;
    }
    EXPECT_EQ(survivors, whole.size() / 4);  // half of them
}

TEST_F(ExportTest, AnotherOutputTypeGoesIntoTheConfig) {
    make_tiny_model("qwen3", DType::bf16).write(model_);
    PruneOptions pruning = options(Method::wanda_plus_plus);
    pruning.output_dtype = DType::f32;
    prune_to_folder(session_, pruning);
    export_it();
    const CheckpointSource exported(output_);
    EXPECT_EQ(exported.storage().matrix_dtype, DType::f32);
    EXPECT_EQ(exported.storage().vector_dtypes[0], DType::bf16);
    EXPECT_EQ(exported.outer_dtype(OuterTensor::embedding), DType::bf16);
    EXPECT_EQ(Json::parse(exported.config_text())["torch_dtype"], "float32");
    EXPECT_TRUE(block_of(exported, 1) == block_of(RunSource(run_), 1));
    for (const auto& [name, stored] : exported.folder().tensors()) {
        EXPECT_EQ(stored.entry.begin % (stored.entry.dtype == "F32" ? 4 : 2), 0U) << name << " is not aligned";
    }
}

TEST_F(ExportTest, LeavesUnusedBuffersOut) {
    const std::string buffer = "model.layers.0.self_attn.rotary_emb.inv_freq";
    TinyModel model = make_tiny_model("llama");
    model.tensors.push_back({buffer, DType::f32, {2}, {1, 2}});
    model.write(model_, 2);
    prune_to_folder(session_, options(Method::magnitude));
    export_it();
    EXPECT_TRUE(CheckpointSource(model_).folder().tensors().contains(buffer));
    EXPECT_FALSE(CheckpointSource(output_).folder().tensors().contains(buffer));
    EXPECT_EQ(read_file(output_ / "model.safetensors.index.json").find(buffer), std::string::npos);
}

TEST_F(ExportTest, SaysWhereItComesFrom) {
    make_tiny_model("llama").write(model_);
    prune_to_folder(session_, options(Method::wanda));
    export_it();
    const Json provenance = Json::parse(read_file(output_ / "pruning.json"));
    EXPECT_EQ(provenance["options"]["method"], "wanda");
    EXPECT_EQ(provenance["blocks"].size(), 2U);
    EXPECT_EQ(provenance["model"], CheckpointSource(model_).identity());
    EXPECT_FALSE(progress_.empty());
}

TEST_F(ExportTest, CopiesOtherFilesButNoOtherWeights) {
    make_tiny_model("llama").write(model_);
    write_file(model_ / "generation_config.json", "{}");
    write_file(model_ / "pytorch_model.bin", "pickled");
    write_file(model_ / "model.gguf", "x");
    std::filesystem::create_directory(model_ / "original");
    prune_to_folder(session_, options(Method::magnitude));
    export_it();
    EXPECT_EQ(names_in(output_), (std::vector<std::string>{"config.json", "generation_config.json", "model.safetensors",
                                                           "pruning.json", "tokenizer.json"}));
}

TEST_F(ExportTest, TiedHeadsStayTied) {
    make_tiny_model("llama", DType::f32, 1, {{"tie_word_embeddings", true}}).write(model_);
    prune_to_folder(session_, options(Method::wanda));
    EXPECT_FALSE(RunSource(run_).has_own_head());
    export_it();
    EXPECT_FALSE(CheckpointSource(output_).has_own_head());
}

TEST_F(ExportTest, RefusesAnExistingOutput) {
    make_tiny_model("llama").write(model_);
    prune_to_folder(session_, options(Method::wanda));
    std::filesystem::create_directory(output_);
    expect_input_error({"--output", "exists already"}, [&] { export_it(); });
    EXPECT_TRUE(names_in(output_).empty());
}

TEST_F(ExportTest, ReplacesWhatAnInterruptedExportLeftAndNothingElse) {
    make_tiny_model("llama").write(model_);
    prune_to_folder(session_, options(Method::wanda));
    const std::filesystem::path partial = output_.string() + ".partial";
    std::filesystem::create_directories(partial);
    write_file(partial / "stale", "x");
    expect_input_error({".partial", "move it away"}, [&] { export_it(); });
    EXPECT_TRUE(std::filesystem::exists(partial / "stale"));
    write_file(partial / ".espalier-export-unfinished", "");
    export_it();
    EXPECT_FALSE(std::filesystem::exists(output_ / "stale"));
    EXPECT_FALSE(std::filesystem::exists(output_ / ".espalier-export-unfinished"));
}

TEST_F(ExportTest, RefusesARunWhoseBlocksWereChanged) {
    make_tiny_model("llama").write(model_);
    prune_to_folder(session_, options(Method::wanda));
    write_file(run_ / "blocks/00001.h5", read_file(run_ / "blocks/00001.h5") + "x");
    expect_input_error({"00001.h5", "manifest"}, [&] { export_it(); });
    EXPECT_FALSE(std::filesystem::exists(output_));
    EXPECT_FALSE(std::filesystem::exists(output_.string() + ".partial"));
}

TEST_F(ExportTest, RefusesAnotherModelAndFindsAMovedOne) {
    make_tiny_model("llama").write(model_);
    prune_to_folder(session_, options(Method::wanda));
    const auto moved = folder_.path() / "moved", other = folder_.path() / "other";
    std::filesystem::rename(model_, moved);
    make_tiny_model("llama", DType::f32, 1, {{"rms_norm_eps", 1e-6}}).write(other);
    expect_input_error({"other", "not the model", "--model"}, [&] { export_it(other); });
    expect_input_error({"model"}, [&] { export_it(); });
    export_it(moved);
    EXPECT_TRUE(std::filesystem::exists(output_ / "model.safetensors"));
}

TEST_F(ExportTest, ARunPrunedFromARunTakesTheRestFromTheFirstModel) {
    make_tiny_model("llama", DType::bf16).write(model_, 3);
    prune_to_folder(session_, options(Method::magnitude));
    const auto second_run = folder_.path() / "second";
    PruneOptions second = options(Method::wanda);
    second.model = run_;
    second.output = second_run;
    prune_to_folder(session_, second);
    export_run(*open_model(second_run), output_, {}, [](const std::string&) {});
    const CheckpointSource exported(output_), dense(model_);
    EXPECT_EQ(exported.folder().shard_names(), dense.folder().shard_names());
    expect_same_outer(exported, dense);
    const RunSource run(second_run);
    for (std::size_t block = 0; block < run.config().blocks.size(); ++block) {
        EXPECT_TRUE(block_of(exported, block) == block_of(run, block)) << block;
    }
    std::filesystem::remove_all(output_);
    // The run between the two, changed, is no longer the model that the second was pruned from.
    std::filesystem::remove_all(run_);
    prune_to_folder(session_, options(Method::wanda));
    expect_input_error({"run", "not the model"},
                       [&] { export_run(*open_model(second_run), output_, {}, [](const std::string&) {}); });
}

TEST_F(ExportTest, UnfinishedRunsAreRefused) {
    make_tiny_model("llama").write(model_);
    prune_to_folder(session_, options(Method::wanda));
    const RunFolder folder(run_);
    Manifest manifest = Manifest::read(folder);
    manifest.complete = false;
    manifest.blocks.erase(1);
    manifest.write(folder);
    expect_input_error({"unfinished", "1 of 2 blocks"}, [&] { export_it(); });
    expect_input_error({"unfinished"}, [&] { static_cast<void>(open_model(run_)); });
}

TEST_F(ExportTest, ARunsIdentityChangesWithItsBlocks) {
    make_tiny_model("llama").write(model_);
    prune_to_folder(session_, options(Method::wanda));
    const std::string wanda = RunSource(run_).identity();
    std::filesystem::remove_all(run_);
    prune_to_folder(session_, options(Method::wanda));
    EXPECT_EQ(RunSource(run_).identity(), wanda);
    std::filesystem::remove_all(run_);
    prune_to_folder(session_, options(Method::magnitude));
    EXPECT_NE(RunSource(run_).identity(), wanda);
}

}  // namespace
}  // namespace espalier
