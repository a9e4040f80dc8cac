// The folder of a run: what it may hold, how files are committed, the chain of manifests.
#include "io/run_folder.h"

#include "io/checksum.h"
#include "io/file.h"
#include "io/hdf5_handle.h"
#include "src/base/error.h"
#include "tests/support/expect.h"
#include "tests/support/temporary_folder.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using namespace support;

class RunFolderTest : public testing::Test {
  protected:
    TemporaryFolder folder_;
    std::filesystem::path path_ = folder_.path() / "run";
    RunFolder run_{path_};
};

TEST_F(RunFolderTest, PrepareCreatesTheFolderAndTakesItsOwnRemains) {
    run_.prepare("{}");
    EXPECT_TRUE(std::filesystem::is_directory(path_ / "blocks"));
    run_.prepare("{}");
    // What a run of this model leaves that is killed before its first manifest.
    for (const char* const name : {"lock", "config.json.tmp", "manifest.json.tmp"}) write_file(path_ / name, "");
    write_file(path_ / "config.json", "{}");
    run_.prepare("{}");
    // And a whole run.
    write_file(path_ / "notes.txt", "");
    run_.write_manifest({{"format", RunFolder::manifest_format}});
    run_.prepare("{}");
}

TEST_F(RunFolderTest, PrepareRefusesForeignFiles) {
    std::filesystem::create_directories(path_);
    write_file(path_ / "thesis.tex", "");
    expect_input_error({"--output", "'thesis.tex'"}, [&] { run_.prepare("{}"); });
    EXPECT_EQ(names_in(path_), std::vector<std::string>{"thesis.tex"}) << "nothing was created";
    std::filesystem::remove(path_ / "thesis.tex");
    std::filesystem::create_directories(path_ / "blocks");
    write_file(path_ / "blocks" / "notes.txt", "");
    expect_input_error({"--output", "'blocks'"}, [&] { run_.prepare("{}"); });
}

TEST_F(RunFolderTest, PrepareRefusesAFileAndAPlaceThatCannotBe) {
    write_file(path_, "");
    expect_input_error({"--output", "not a folder"}, [&] { run_.prepare("{}"); });
    expect_input_error({"--output", "cannot be created"}, [] { RunFolder("/proc/no/run").prepare("{}"); });
}

TEST_F(RunFolderTest, PrepareRefusesAnotherModelsFolder) {
    std::filesystem::create_directories(path_);
    write_file(path_ / "config.json", "{\"model_type\": \"llama\"}");
    expect_input_error({"--output", "'config.json'"}, [&] { run_.prepare("{}"); });
}

TEST_F(RunFolderTest, PrepareRefusesForeignManifests) {
    std::filesystem::create_directories(path_);
    for (const char* const content : {"{\"format\": \"web app\"}", "{}", "[]", "{"}) {
        write_file(path_ / "manifest.json", content);
        expect_input_error({"--output", "manifest.json"}, [&] { run_.prepare("{}"); });
    }
}

TEST_F(RunFolderTest, ClearRemovesItsOwnFilesOnly) {
    run_.prepare("{}");
    run_.write_manifest({{"format", RunFolder::manifest_format}});
    for (const char* const name : {"config.json", "metrics.json", "events.jsonl", "non_block.h5", "model.h5",
                                   "blocks/00000.h5", "blocks/00001.h5.tmp", "blocks/123456.h5", "00001.h5", "lock",
                                   "notes.txt", "blocks/0001.h5", "blocks/notes.h5"}) {
        write_file(path_ / name, "");
    }
    run_.clear();
    EXPECT_EQ(names_in(path_), (std::vector<std::string>{"00001.h5", "blocks", "lock", "notes.txt"}));
    EXPECT_EQ(names_in(path_ / "blocks"), (std::vector<std::string>{"0001.h5", "notes.h5"}));
}

TEST_F(RunFolderTest, ClearLeavesAFolderWithoutAManifestAlone) {
    std::filesystem::create_directories(path_);
    write_file(path_ / "config.json", "of somebody else");
    run_.clear();
    EXPECT_EQ(names_in(path_), std::vector<std::string>{"config.json"});
}

TEST_F(RunFolderTest, ManifestsFormAChain) {
    run_.prepare("{}");
    run_.write_manifest({{"format", RunFolder::manifest_format}});
    const std::string first = read_file(path_ / "manifest.json");
    EXPECT_TRUE(Json::parse(first)["previous_manifest_sha256"].is_null());
    run_.write_manifest({{"format", RunFolder::manifest_format}});
    EXPECT_EQ(Json::parse(read_file(path_ / "manifest.json"))["previous_manifest_sha256"], sha256(first));
}

TEST_F(RunFolderTest, Names) {
    EXPECT_EQ(RunFolder::block_file(42), "blocks/00042.h5");
    EXPECT_EQ(RunFolder::block_file(123456), "blocks/123456.h5");
    EXPECT_EQ(hdf5_path("model.layers.3.mlp.up_proj.weight"), "/model/layers/3/mlp/up_proj/weight");
}

TEST_F(RunFolderTest, CommitBlockLeavesNoTemporary) {
    run_.prepare("{}");
    const std::vector<float> values = {1, 2, 3, 4, 5, 6};
    const FileTensor tensor{"model.layers.1.mlp.up_proj.weight", DType::f32, {2, 3}, std::as_bytes(std::span(values))};
    std::filesystem::path audited;
    const FileRecord record =
        run_.commit_block(1, {tensor}, {{"format", "test"}}, [&](const std::filesystem::path& path) {
            audited = path;
            EXPECT_FALSE(std::filesystem::exists(run_.block_path(1))) << "the audit comes before the name";
            EXPECT_EQ(Hdf5Reader(path).attribute("/", "format"), "test");
        });
    EXPECT_EQ(audited, run_.block_path(1).string() + ".tmp");
    EXPECT_EQ(names_in(path_ / "blocks"), std::vector<std::string>{"00001.h5"});
    EXPECT_EQ(record.file, "blocks/00001.h5");
    EXPECT_EQ(record.bytes, std::filesystem::file_size(run_.block_path(1)));
    EXPECT_EQ(record.xxh3, xxh3_128_of_file(run_.block_path(1)));
    std::vector<float> back(6);
    Hdf5Reader(run_.block_path(1)).read("/model/layers/1/mlp/up_proj/weight", std::as_writable_bytes(std::span(back)));
    EXPECT_EQ(back, values);
}

TEST_F(RunFolderTest, AFailedAuditCommitsNothing) {
    run_.prepare("{}");
    const std::vector<float> values = {1};
    const FileTensor tensor{"w", DType::f32, {1}, std::as_bytes(std::span(values))};
    expect_input_error({"audit"}, [&] {
        run_.commit_block(1, {tensor}, {}, [](const std::filesystem::path&) { throw InputError("audit"); });
    });
    EXPECT_FALSE(std::filesystem::exists(run_.block_path(1)));
}

TEST_F(RunFolderTest, LinkedFileShowsAllTensors) {
    run_.prepare("{}");
    const std::vector<float> values = {7};
    const auto data = std::as_bytes(std::span(values));
    for (std::size_t block = 0; block < 2; ++block) {
        run_.commit_block(block, {{"model.layers." + std::to_string(block) + ".w", DType::f32, {1}, data}}, {},
                          [](const std::filesystem::path&) {});
    }
    Hdf5Writer outer(path_ / "non_block.h5");
    outer.write("/model/norm/weight", DType::f32, {1}, data);
    outer.close();
    const FileRecord record = run_.write_linked_file({"model.layers.0", "model.layers.1"}, {"model.norm.weight"});
    EXPECT_EQ(record.file, "model.h5");
    EXPECT_EQ(record.xxh3, run_.record_of("model.h5").xxh3);
    const Hdf5Reader linked(path_ / "model.h5");
    for (const char* const name : {"/model/layers/0/w", "/model/layers/1/w", "/model/norm/weight"}) {
        std::vector<float> back(1);
        linked.read(name, std::as_writable_bytes(std::span(back)));
        EXPECT_EQ(back, values) << name;
    }
}

}  // namespace
}  // namespace espalier
