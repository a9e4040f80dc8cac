// Hugging Face folders: one or several safetensors files, checked against the index and each other.
#include "io/checkpoint_folder.h"

#include "src/base/error.h"
#include "tests/support/expect.h"
#include "tests/support/temporary_folder.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using namespace support;

/// A safetensors file of U8 tensors named by `names`, 4 bytes each: the name's first letter, or `value`, four times.
std::string safetensors(const std::vector<std::string>& names, const std::map<std::string, std::string>& metadata = {},
                        char value = 0) {
    std::vector<std::pair<std::string, SafetensorsEntry>> tensors;
    std::string data;
    for (const std::string& name : names) {
        tensors.emplace_back(name, SafetensorsEntry{"U8", {4}, 0, 4});
        data += std::string(4, value == 0 ? name[0] : value);
    }
    return make_safetensors_header(tensors, metadata) + data;
}

class CheckpointFolderTest : public testing::Test {
  protected:
    TemporaryFolder folder_;

    void write(const std::string& name, std::string_view content) { write_file(folder_.path() / name, content); }
    void write_index(const std::string& weight_map) {
        write("model.safetensors.index.json", R"({"metadata":{"total_size":1},"weight_map":)" + weight_map + "}");
    }
    void write_single() {
        write("config.json", "{}");
        write("model.safetensors", safetensors({"alpha", "beta"}, {{"format", "pt"}}));
    }
    void write_sharded() {
        write("config.json", "{}");
        write("one.safetensors", safetensors({"alpha"}));
        write("two.safetensors", safetensors({"beta", "gamma"}));
        write_index(R"({"alpha":"one.safetensors","beta":"two.safetensors","gamma":"two.safetensors"})");
    }
    void expect_refused(std::initializer_list<const char*> words) {
        expect_input_error(words, [&] { CheckpointFolder{folder_.path()}; });
    }
};

std::string read_tensor(const CheckpointFolder& folder, const std::string& name) {
    std::string data(folder.tensor(name).entry.bytes, '\0');
    folder.read(name, 0, std::as_writable_bytes(std::span(data)));
    return data;
}

TEST_F(CheckpointFolderTest, SingleFile) {
    write_single();
    const CheckpointFolder folder(folder_.path());
    EXPECT_FALSE(folder.sharded());
    EXPECT_EQ(folder.shard_names(), std::vector<std::string>{"model.safetensors"});
    EXPECT_EQ(folder.tensors().size(), 2U);
    EXPECT_EQ(read_tensor(folder, "alpha"), "aaaa");
    EXPECT_EQ(read_tensor(folder, "beta"), "bbbb");
    EXPECT_EQ(folder.metadata_of_shard(0).at("format"), "pt");
    EXPECT_EQ(folder.config_text(), "{}");
    EXPECT_TRUE(folder.contains("alpha"));
    EXPECT_FALSE(folder.contains("gamma"));
    expect_input_error({"gamma", "missing"}, [&] { static_cast<void>(folder.tensor("gamma")); });
    std::string piece(2, '\0');
    folder.read("beta", 2, std::as_writable_bytes(std::span(piece)));
    EXPECT_EQ(piece, "bb");
    expect_error(ExitStatus::bug, {"inside the tensor"},
                 [&] { folder.read("beta", 3, std::as_writable_bytes(std::span(piece))); });
}

TEST_F(CheckpointFolderTest, Sharded) {
    write_sharded();
    const CheckpointFolder folder(folder_.path());
    EXPECT_TRUE(folder.sharded());
    EXPECT_EQ(folder.shard_names(), (std::vector<std::string>{"one.safetensors", "two.safetensors"}));
    EXPECT_EQ(read_tensor(folder, "gamma"), "gggg");
    EXPECT_EQ(folder.file_of(folder.tensor("beta")).filename(), "two.safetensors");
}

TEST_F(CheckpointFolderTest, SymbolicLinksWork) {
    // As the hub's cache stores a snapshot: links to blobs elsewhere.
    const TemporaryFolder blobs;
    write_file(blobs.path() / "c", "{}");
    write_file(blobs.path() / "m", safetensors({"alpha"}));
    std::filesystem::create_symlink(blobs.path() / "c", folder_.path() / "config.json");
    std::filesystem::create_symlink(blobs.path() / "m", folder_.path() / "model.safetensors");
    EXPECT_EQ(read_tensor(CheckpointFolder(folder_.path()), "alpha"), "aaaa");
    const auto link = blobs.path() / "snapshot";
    std::filesystem::create_directory_symlink(folder_.path(), link);
    EXPECT_EQ(read_tensor(CheckpointFolder(link), "alpha"), "aaaa");
}

TEST_F(CheckpointFolderTest, DtypesWeComputeOn) {
    write("config.json", "{}");
    const std::vector<std::pair<std::string, SafetensorsEntry>> tensors = {{"f32", {"F32", {1}, 0, 4}},
                                                                           {"f16", {"F16", {2}, 0, 4}},
                                                                           {"bf16", {"BF16", {2}, 0, 4}},
                                                                           {"i8", {"I8", {4}, 0, 4}}};
    write("model.safetensors", make_safetensors_header(tensors, {}) + std::string(16, '\0'));
    const CheckpointFolder folder(folder_.path());
    EXPECT_EQ(folder.dtype_of("f32"), DType::f32);
    EXPECT_EQ(folder.dtype_of("f16"), DType::f16);
    EXPECT_EQ(folder.dtype_of("bf16"), DType::bf16);
    expect_input_error({"i8", "I8", "dequantised"}, [&] { static_cast<void>(folder.dtype_of("i8")); });
}

TEST_F(CheckpointFolderTest, IdentityChangesWithConfigAndHeaders) {
    write_single();
    const std::string identity = CheckpointFolder(folder_.path()).identity();
    EXPECT_EQ(identity, CheckpointFolder(folder_.path()).identity());
    write("config.json", "{ }");
    EXPECT_NE(identity, CheckpointFolder(folder_.path()).identity());
    write("config.json", "{}");
    EXPECT_EQ(identity, CheckpointFolder(folder_.path()).identity());
    write("model.safetensors", safetensors({"alpha", "beta2"}, {{"format", "pt"}}));
    EXPECT_NE(identity, CheckpointFolder(folder_.path()).identity());
}

TEST_F(CheckpointFolderTest, RefusesWhatIsNoModelFolder) {
    expect_input_error({"absent", "does not exist"}, [&] { CheckpointFolder{folder_.path() / "absent"}; });
    expect_refused({"config.json"});
    std::filesystem::create_directory(folder_.path() / "models--a--b");
    expect_refused({"Hugging Face cache", "models--a--b"});
    write("config.json", "{}");
    expect_refused({"neither model.safetensors"});
}

TEST_F(CheckpointFolderTest, RefusesPickledWeights) {
    write("config.json", "{}");
    write("pytorch_model.bin", "x");
    const std::string command = "jobs/import_pytorch.py " + folder_.path().string() + " " + folder_.path().string();
    expect_refused({"pytorch_model.bin", "pickled", command.c_str()});
    std::filesystem::rename(folder_.path() / "pytorch_model.bin", folder_.path() / "pytorch_model-00001-of-00002.bin");
    expect_refused({"pytorch_model-00001-of-00002.bin"});
    write("model.safetensors", safetensors({"alpha"}));
    EXPECT_NO_THROW(CheckpointFolder{folder_.path()}) << "both kinds: the safe one is used";
}

TEST_F(CheckpointFolderTest, RefusesAdapters) {
    write_single();
    write("adapter_config.json", "{}");
    expect_refused({"LoRA", "adapter_config.json"});
}

TEST_F(CheckpointFolderTest, RefusesGitLfsPointers) {
    write("config.json", "{}");
    write("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 13476835328\n");
    expect_refused({"model.safetensors", "git-lfs", "git lfs pull"});
    write_sharded();
    std::filesystem::remove(folder_.path() / "model.safetensors");
    for (const char* const name : {"model.safetensors.index.json", "config.json"}) {
        write(name, "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 13476835328\n");
        expect_refused({name, "git-lfs", "git lfs pull"});
    }
}

TEST_F(CheckpointFolderTest, RefusesDamagedFiles) {
    write("config.json", "{}");
    write("model.safetensors", "short");
    expect_refused({"model.safetensors", "5 bytes"});
    const std::string whole = safetensors({"alpha", "beta"});
    write("model.safetensors", whole.substr(0, whole.size() - 1));
    expect_refused({"model.safetensors", "'beta'", "truncated"});
    write("model.safetensors", whole.substr(0, 40));
    expect_refused({"model.safetensors", "header", "truncated"});
    write("model.safetensors", whole + "x");
    expect_refused({"model.safetensors", "1 bytes after"});
    write("model.safetensors", "<!DOCTYPE html><html>404</html>");
    expect_refused({"model.safetensors"});
}

TEST_F(CheckpointFolderTest, TheIndexDecidesWhichCopyIsRead) {
    // As merged and edited checkpoints are published: an overlay shard, the old copies still in the base shard.
    write_sharded();
    write("overlay.safetensors", safetensors({"alpha", "gamma"}, {}, 'o'));
    write_index(R"({"alpha":"overlay.safetensors","beta":"two.safetensors","gamma":"overlay.safetensors"})");
    const CheckpointFolder folder(folder_.path());
    EXPECT_EQ(folder.shard_names(), (std::vector<std::string>{"overlay.safetensors", "two.safetensors"}));
    EXPECT_EQ(folder.tensors().size(), 3U);
    EXPECT_EQ(read_tensor(folder, "alpha"), "oooo");
    EXPECT_EQ(read_tensor(folder, "beta"), "bbbb");
    EXPECT_EQ(read_tensor(folder, "gamma"), "oooo");
    ASSERT_EQ(folder.warnings().size(), 1U);
    EXPECT_NE(folder.warnings()[0].find("1 stored tensor(s) are ignored"), std::string::npos) << folder.warnings()[0];
    EXPECT_NE(folder.warnings()[0].find("'gamma' in two.safetensors"), std::string::npos) << folder.warnings()[0];
}

TEST_F(CheckpointFolderTest, TheIndexsChoiceIsPartOfTheIdentity) {
    write_sharded();
    write("one.safetensors", safetensors({"alpha", "delta"}));
    write("two.safetensors", safetensors({"alpha", "beta", "gamma"}));
    const auto identity_with_alpha_in = [&](const std::string& shard) {
        write_index(R"({"alpha":")" + shard + R"(","beta":"two.safetensors","gamma":"two.safetensors",)" +
                    R"("delta":"one.safetensors"})");
        return CheckpointFolder(folder_.path()).identity();
    };
    EXPECT_NE(identity_with_alpha_in("one.safetensors"), identity_with_alpha_in("two.safetensors"));
}

TEST_F(CheckpointFolderTest, WhatTheIndexDoesNotMapIsIgnoredWithOneWarning) {
    write_sharded();
    write("two.safetensors", safetensors({"beta", "delta", "gamma"}));
    write_index(R"({"alpha":"one.safetensors","beta":"two.safetensors"})");
    const CheckpointFolder folder(folder_.path());
    EXPECT_FALSE(folder.contains("gamma"));
    ASSERT_EQ(folder.warnings().size(), 1U);
    EXPECT_NE(folder.warnings()[0].find("2 stored tensor(s)"), std::string::npos) << folder.warnings()[0];
    EXPECT_NE(folder.warnings()[0].find("'delta' in two.safetensors"), std::string::npos) << folder.warnings()[0];
    EXPECT_EQ(folder.unmapped("gamma"), folder_.path() / "two.safetensors");
    EXPECT_EQ(folder.unmapped("beta"), std::nullopt);
}

TEST_F(CheckpointFolderTest, RefusesMissingShards) {
    write_sharded();
    std::filesystem::remove(folder_.path() / "two.safetensors");
    expect_refused({"two.safetensors", "incomplete download"});
}

TEST_F(CheckpointFolderTest, RefusesIndexesThatDisagreeWithTheShards) {
    write_sharded();
    write_index(R"({"alpha":"one.safetensors","beta":"one.safetensors","gamma":"two.safetensors"})");
    expect_refused({"'beta'", "one.safetensors"});
    write_index(
        R"({"alpha":"one.safetensors","beta":"two.safetensors","gamma":"two.safetensors","delta":"two.safetensors"})");
    expect_refused({"'delta'"});
}

TEST_F(CheckpointFolderTest, NamesTheKindsOfFilesThatItHolds) {
    write_sharded();
    EXPECT_EQ(CheckpointFolder::weight_files(folder_.path()), std::vector{WeightFiles::sharded});
    write_single();
    EXPECT_EQ(CheckpointFolder::weight_files(folder_.path()), (std::vector{WeightFiles::single, WeightFiles::sharded}));
    EXPECT_EQ(CheckpointFolder(folder_.path(), WeightFiles::single).shard_names().size(), 1U);
    EXPECT_EQ(CheckpointFolder(folder_.path(), WeightFiles::sharded).shard_names().size(), 2U);
}

TEST_F(CheckpointFolderTest, SaysWhereALinkToNothingLeads) {
    write_sharded();
    for (const char* const name : {"config.json", "two.safetensors", "model.safetensors.index.json"}) {
        SCOPED_TRACE(name);
        write_sharded();
        std::filesystem::remove(folder_.path() / name);
        std::filesystem::create_symlink("../../blobs/0123", folder_.path() / name);
        expect_refused({name, "../../blobs/0123", "not there", "download the model again"});
        std::filesystem::remove(folder_.path() / name);
    }
}

TEST_F(CheckpointFolderTest, RefusesPathsInTheIndex) {
    write_sharded();
    write_file(folder_.path().parent_path() / "outside.safetensors", safetensors({"alpha"}));
    for (const char* const name :
         {"../outside.safetensors", "/etc/passwd", "sub/one.safetensors", "..", ".", "", "./one.safetensors"}) {
        write_index(std::string(R"({"alpha":")") + name + R"("})");
        expect_refused({"'alpha'", "plain file name"});
    }
    std::filesystem::remove(folder_.path().parent_path() / "outside.safetensors");
}

TEST_F(CheckpointFolderTest, RefusesANulInANameWithAWholeSentence) {
    write_sharded();
    write_index(R"({"alpha":"one.safetensors\u0000"})");
    expect_refused({"one.safetensors", "'alpha'", "plain file name"});
}

TEST_F(CheckpointFolderTest, RefusesMalformedIndexes) {
    write_sharded();
    write("model.safetensors.index.json", "{");
    expect_refused({"index.json", "JSON"});
    write("model.safetensors.index.json", "[]");
    expect_refused({"weight_map"});
    write("model.safetensors.index.json", R"({"weight_map":[]})");
    expect_refused({"weight_map"});
    write_index("{}");
    expect_refused({"weight_map", "empty"});
    write_index(R"({"alpha":3})");
    expect_refused({"'alpha'", "string"});
    write_index(R"({"alpha":"one.safetensors","alpha":"one.safetensors"})");
    expect_refused({"alpha", "twice"});
}

}  // namespace
}  // namespace espalier
