// The folder of a run: what it may hold, how files are committed, the manifest.
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

/// Everything that a block's metrics must hold.
Json example_metrics(double error) {
    return {{"pruned", true},       {"sparsity", {{"self_attn.q_proj", 0.5}}},
            {"error_final", error}, {"error_after_first_mask", error},
            {"flops", 1.0},         {"seconds", {{"mask", 0.25}}},
            {"peak_bytes", 100}};
}

Manifest example_manifest() {
    Manifest manifest;
    manifest.run_id = "2026-01-01-abc";
    manifest.program_version = "0.1.0";
    manifest.model_path = "/models/\xc3\xa9";
    manifest.model_identity = "m1";
    manifest.calibration_path = "tokens.h5";
    manifest.calibration_sha256 = "c1";
    manifest.blocks_in_model = 3;
    manifest.options = {{"method", "wanda"}, {"pattern", "2:4"}, {"sparsity", 0.5}, {"alpha", 100.5}};
    manifest.provenance = {{"host", "h"}};
    manifest.blocks[0] = {{"blocks/00000.h5", 10, "aa"}, example_metrics(0.25)};
    manifest.blocks[2] = {{"blocks/00002.h5", std::uint64_t{1} << 40, "bb"}, example_metrics(0.5)};
    return manifest;
}

Manifest complete_manifest() {
    Manifest manifest = example_manifest();
    manifest.blocks[1] = {{"blocks/00001.h5", 11, "cc"}, example_metrics(0.75)};
    manifest.outer_files = {{"non_block.h5", 7, "dd"}, {"model.h5", 8, "ee"}, {"config.json", 9, "ff"}};
    manifest.learning_rate = {{"learning_rate", 1e-5}};
    manifest.complete = true;
    return manifest;
}

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
    run_.write_manifest(example_manifest());
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
    run_.write_manifest(example_manifest());
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
    run_.write_manifest(example_manifest());
    const std::string first = read_file(path_ / "manifest.json");
    EXPECT_TRUE(Json::parse(first)["previous_manifest_sha256"].is_null());
    run_.write_manifest(example_manifest());
    EXPECT_EQ(Json::parse(read_file(path_ / "manifest.json"))["previous_manifest_sha256"], sha256(first));
}

TEST_F(RunFolderTest, AManifestWithOtherOptionsThanItsHashIsDamaged) {
    run_.prepare("{}");
    run_.write_manifest(example_manifest());
    Json json = Json::parse(read_file(path_ / "manifest.json"));
    json["options"]["seed"] = 7;
    write_file(path_ / "manifest.json", json.dump());
    expect_input_error({"manifest.json", "configuration_sha256"}, [&] { static_cast<void>(run_.read_manifest()); });
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
    const FileRecord record = run_.write_linked_file(2, {"model.norm.weight"});
    EXPECT_EQ(record.file, "model.h5");
    EXPECT_EQ(record.xxh3, run_.record_of("model.h5").xxh3);
    const Hdf5Reader linked(path_ / "model.h5");
    for (const char* const name : {"/model/layers/0/w", "/model/layers/1/w", "/model/norm/weight"}) {
        std::vector<float> back(1);
        linked.read(name, std::as_writable_bytes(std::span(back)));
        EXPECT_EQ(back, values) << name;
    }
}

TEST_F(RunFolderTest, ManifestRoundTrip) {
    run_.prepare("{}");
    EXPECT_FALSE(run_.has_manifest());
    expect_input_error({"manifest.json"}, [&] { static_cast<void>(run_.read_manifest()); });
    Manifest manifest = example_manifest();
    run_.write_manifest(manifest);
    EXPECT_TRUE(run_.has_manifest());
    EXPECT_EQ(run_.read_manifest().to_json(), manifest.to_json());
    EXPECT_EQ(run_.read_manifest().blocks.at(2).file.bytes, std::uint64_t{1} << 40);
    EXPECT_TRUE(run_.read_manifest().learning_rate.is_null());
    manifest = complete_manifest();
    run_.write_manifest(manifest);
    EXPECT_EQ(run_.read_manifest().to_json(), manifest.to_json());
    EXPECT_TRUE(run_.read_manifest().complete);
    EXPECT_EQ(run_.read_manifest().learning_rate["learning_rate"], 1e-5);
    EXPECT_EQ(names_in(path_), (std::vector<std::string>{"blocks", "manifest.json"}));
}

TEST_F(RunFolderTest, RefusesDamagedManifests) {
    run_.prepare("{}");
    const auto expect_refused = [&](const Json& json, std::initializer_list<const char*> words) {
        write_file(path_ / "manifest.json", json.dump());
        expect_input_error({"manifest.json"}, [&] { static_cast<void>(run_.read_manifest()); });
        expect_input_error(words, [&] { static_cast<void>(run_.read_manifest()); });
    };
    const Json good = example_manifest().to_json();
    for (const auto& [name, value] : good.items()) {
        Json without = good;
        without.erase(name);
        expect_refused(without, {"damaged"});
    }
    Json other = good;
    other["format"] = "espalier-metrics";
    expect_refused(other, {"not an Espalier manifest"});
    other = good;
    other["version"] = 2;
    expect_refused(other, {"version 2", "version 1"});
    other = good;
    other["blocks"][0].erase("xxh3_128");
    expect_refused(other, {"damaged"});
    other = good;
    other["blocks"][0]["index"] = "zero";
    expect_refused(other, {"damaged"});
    other = good;
    other["complete"] = 1;
    expect_refused(other, {"damaged"});
    expect_refused(Json::array(), {"damaged"});
    other = good;
    other["blocks"].push_back(other["blocks"][0]);
    expect_refused(other, {"damaged", "twice"});
    other = good;
    other["blocks"][0]["index"] = 3;
    expect_refused(other, {"damaged", "block 3"});
    other = good;
    other["blocks"][0]["file"] = "../elsewhere.h5";
    expect_refused(other, {"damaged", "block 0", "file name"});
    for (const char* const name : {"pruned", "sparsity", "error_final", "flops", "seconds", "peak_bytes"}) {
        other = good;
        other["blocks"][0]["metrics"].erase(name);
        expect_refused(other, {"damaged", "block 0", name});
    }
    other = good;
    other["options"].erase("pattern");
    expect_refused(other, {"damaged", "pattern"});
    other = good;
    other["complete"] = true;
    expect_refused(other, {"damaged", "2 of 3 blocks"});
    other = complete_manifest().to_json();
    other["outer_files"].erase(1);
    expect_refused(other, {"damaged", "model.h5"});
    write_file(path_ / "manifest.json", good.dump().substr(0, 100));
    expect_input_error({"manifest.json", "JSON"}, [&] { static_cast<void>(run_.read_manifest()); });
}

TEST_F(RunFolderTest, MetricsOfTheWrongKindAreRefused) {
    run_.prepare("{}");
    const Json metrics = example_metrics(0.5);
    for (const auto& [name, value] : metrics.items()) {
        for (const Json& wrong : {Json("x"), Json(), Json{1}, Json{{"mask", "x"}}}) {
            Json json = example_manifest().to_json();
            json["blocks"][1]["metrics"][name] = wrong;
            write_file(path_ / "manifest.json", json.dump());
            expect_input_error({"manifest.json", "damaged", "block 2", name.c_str()},
                               [&] { static_cast<void>(run_.read_manifest()); });
        }
    }
}

TEST_F(RunFolderTest, ManifestNumbersThatAreNegativeAreRefused) {
    run_.prepare("{}");
    const auto index = [](Json& json) -> Json& { return json["blocks"][0]["index"]; };
    const auto bytes = [](Json& json) -> Json& { return json["blocks"][0]["bytes"]; };
    const auto blocks = [](Json& json) -> Json& { return json["model"]["blocks"]; };
    for (const std::function<Json&(Json&)>& place : {std::function<Json&(Json&)>(index), {bytes}, {blocks}}) {
        Json json = example_manifest().to_json();
        place(json) = -1;
        write_file(path_ / "manifest.json", json.dump());
        expect_input_error({"manifest.json"}, [&] { static_cast<void>(run_.read_manifest()); });
    }
}

}  // namespace
}  // namespace espalier
