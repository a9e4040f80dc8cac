// The manifest: what is written comes back, and what is damaged is refused with what is wrong.
#include "src/weights/manifest.h"

#include "io/file.h"
#include "src/base/error.h"
#include "tests/support/expect.h"
#include "tests/support/temporary_folder.h"

#include <gtest/gtest.h>

#include <functional>

namespace espalier {
namespace {

using namespace support;

class ManifestTest : public testing::Test {
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

TEST_F(ManifestTest, AManifestWithOtherOptionsThanItsHashIsDamaged) {
    run_.prepare("{}");
    example_manifest().write(run_);
    Json json = Json::parse(read_file(path_ / "manifest.json"));
    json["options"]["seed"] = 7;
    write_file(path_ / "manifest.json", json.dump());
    expect_input_error({"manifest.json", "configuration_sha256"}, [&] { static_cast<void>(Manifest::read(run_)); });
}

TEST_F(ManifestTest, ManifestRoundTrip) {
    run_.prepare("{}");
    EXPECT_FALSE(run_.has_manifest());
    expect_input_error({"manifest.json"}, [&] { static_cast<void>(Manifest::read(run_)); });
    Manifest manifest = example_manifest();
    manifest.write(run_);
    EXPECT_TRUE(run_.has_manifest());
    EXPECT_EQ(Manifest::read(run_).to_json(), manifest.to_json());
    EXPECT_EQ(Manifest::read(run_).blocks.at(2).file.bytes, std::uint64_t{1} << 40);
    EXPECT_TRUE(Manifest::read(run_).learning_rate.is_null());
    manifest = complete_manifest();
    manifest.write(run_);
    EXPECT_EQ(Manifest::read(run_).to_json(), manifest.to_json());
    EXPECT_TRUE(Manifest::read(run_).complete);
    EXPECT_EQ(Manifest::read(run_).learning_rate["learning_rate"], 1e-5);
    EXPECT_EQ(names_in(path_), (std::vector<std::string>{"blocks", "manifest.json"}));
}

TEST_F(ManifestTest, RefusesDamagedManifests) {
    run_.prepare("{}");
    const auto expect_refused = [&](const Json& json, std::initializer_list<const char*> words) {
        write_file(path_ / "manifest.json", json.dump());
        expect_input_error({"manifest.json"}, [&] { static_cast<void>(Manifest::read(run_)); });
        expect_input_error(words, [&] { static_cast<void>(Manifest::read(run_)); });
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
    expect_input_error({"manifest.json", "JSON"}, [&] { static_cast<void>(Manifest::read(run_)); });
}

TEST_F(ManifestTest, MetricsOfTheWrongKindAreRefused) {
    run_.prepare("{}");
    const Json metrics = example_metrics(0.5);
    for (const auto& [name, value] : metrics.items()) {
        for (const Json& wrong : {Json("x"), Json(), Json{1}, Json{{"mask", "x"}}}) {
            Json json = example_manifest().to_json();
            json["blocks"][1]["metrics"][name] = wrong;
            write_file(path_ / "manifest.json", json.dump());
            expect_input_error({"manifest.json", "damaged", "block 2", name.c_str()},
                               [&] { static_cast<void>(Manifest::read(run_)); });
        }
    }
}

TEST_F(ManifestTest, ManifestNumbersThatAreNegativeAreRefused) {
    run_.prepare("{}");
    const auto index = [](Json& json) -> Json& { return json["blocks"][0]["index"]; };
    const auto bytes = [](Json& json) -> Json& { return json["blocks"][0]["bytes"]; };
    const auto blocks = [](Json& json) -> Json& { return json["model"]["blocks"]; };
    for (const std::function<Json&(Json&)>& place : {std::function<Json&(Json&)>(index), {bytes}, {blocks}}) {
        Json json = example_manifest().to_json();
        place(json) = -1;
        write_file(path_ / "manifest.json", json.dump());
        expect_input_error({"manifest.json"}, [&] { static_cast<void>(Manifest::read(run_)); });
    }
}

}  // namespace
}  // namespace espalier
