// Token ids in .npy and HDF5 files.
#include "io/token_file.h"

#include "io/checksum.h"
#include "io/hdf5_handle.h"
#include "src/base/error.h"
#include "tests/support/expect.h"
#include "tests/support/temporary_folder.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using namespace support;

template <typename T>
void write_npy(const std::filesystem::path& path, const std::string& descr, const std::string& shape,
               const std::vector<T>& ids) {
    const std::string dictionary = "{'descr': '" + descr + "', 'fortran_order': False, 'shape': " + shape + ", }\n";
    std::string file("\x93NUMPY\1\0", 8);
    file += static_cast<char>(dictionary.size() & 0xff);
    file += static_cast<char>(dictionary.size() >> 8);
    write_file(path, file + dictionary + bytes_of_vector(ids));
}

/// /input_ids of any HDF5 integer type.
template <typename T>
void write_hdf5(const std::filesystem::path& path, hid_t type, const std::vector<hsize_t>& shape,
                const std::vector<T>& ids, const char* name = "input_ids") {
    const auto lock = lock_hdf5();
    const Hdf5Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
    const Hdf5Handle space(H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr), H5Sclose);
    const Hdf5Handle dataset(H5Dcreate2(file.id(), name, type, space.id(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                             H5Dclose);
    if (!ids.empty()) H5Dwrite(dataset.id(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, ids.data());
}

class TokenFile : public testing::Test {
  protected:
    TemporaryFolder folder_;
    std::filesystem::path npy_ = folder_.path() / "tokens.npy", hdf5_ = folder_.path() / "tokens.h5";

    void expect_refused(const std::filesystem::path& path, std::initializer_list<const char*> words) {
        expect_input_error(words, [&] { read_token_file(path, 100, TokenPurpose::calibration); });
    }
};

TEST_F(TokenFile, NpyOfEveryWidth) {
    const auto check = [&] {
        const TokenTable table = read_token_file(npy_, 100, TokenPurpose::calibration);
        EXPECT_EQ(table.rows, 2U);
        EXPECT_EQ(table.columns, 3U);
        EXPECT_EQ(table.ids, (std::vector<std::int32_t>{0, 1, 2, 97, 98, 99}));
        EXPECT_EQ(table.sha256, sha256_of_file(npy_));
    };
    write_npy<std::int16_t>(npy_, "<i2", "(2, 3)", {0, 1, 2, 97, 98, 99});
    check();
    write_npy<std::uint16_t>(npy_, "<u2", "(2, 3)", {0, 1, 2, 97, 98, 99});
    check();
    write_npy<std::int32_t>(npy_, "<i4", "(2, 3)", {0, 1, 2, 97, 98, 99});
    check();
    write_npy<std::uint32_t>(npy_, "<u4", "(2, 3)", {0, 1, 2, 97, 98, 99});
    check();
    write_npy<std::int64_t>(npy_, "<i8", "(2, 3)", {0, 1, 2, 97, 98, 99});
    check();
    write_npy<std::uint64_t>(npy_, "<u8", "(2, 3)", {0, 1, 2, 97, 98, 99});
    check();
}

TEST_F(TokenFile, Hdf5OfSeveralWidths) {
    write_hdf5<std::int64_t>(hdf5_, H5T_NATIVE_INT64, {2, 3}, {0, 1, 2, 97, 98, 99});
    TokenTable table = read_token_file(hdf5_, 100, TokenPurpose::calibration);
    EXPECT_EQ(table.rows, 2U);
    EXPECT_EQ(table.columns, 3U);
    EXPECT_EQ(table.ids, (std::vector<std::int32_t>{0, 1, 2, 97, 98, 99}));
    write_hdf5<std::uint8_t>(hdf5_, H5T_NATIVE_UINT8, {4}, {5, 6, 7, 8});
    table = read_token_file(hdf5_, 100, TokenPurpose::calibration);
    EXPECT_EQ(table.rows, 1U);
    EXPECT_EQ(table.columns, 4U);
    EXPECT_EQ(table.ids, (std::vector<std::int32_t>{5, 6, 7, 8}));
    write_hdf5<std::int32_t>(hdf5_, H5T_STD_I32BE, {2}, {0x01000000, 0x02000000});  // big-endian is HDF5's business
    EXPECT_EQ(read_token_file(hdf5_, 100, TokenPurpose::calibration).ids, (std::vector<std::int32_t>{1, 2}));
}

TEST_F(TokenFile, OneDimensionIsOneRow) {
    write_npy<std::int32_t>(npy_, "<i4", "(4,)", {1, 2, 3, 4});
    const TokenTable table = read_token_file(npy_, 100, TokenPurpose::calibration);
    EXPECT_EQ(table.rows, 1U);
    EXPECT_EQ(table.columns, 4U);
}

TEST_F(TokenFile, TheFirstBytesDecideNotTheName) {
    const auto misnamed = folder_.path() / "tokens.h5";
    write_npy<std::int32_t>(misnamed, "<i4", "(2,)", {1, 2});
    EXPECT_EQ(read_token_file(misnamed, 100, TokenPurpose::calibration).ids.size(), 2U);
}

TEST_F(TokenFile, RefusesIdsOutsideOfTheVocabularyWithTheirPlace) {
    write_npy<std::int32_t>(npy_, "<i4", "(2, 3)", {0, 1, 2, 3, 100, 5});
    expect_refused(npy_, {"tokens.npy", "100", "[1, 1]", "vocabulary of 100"});
    write_npy<std::int32_t>(npy_, "<i4", "(2, 3)", {0, 1, -1, 3, 4, 5});
    expect_refused(npy_, {"-1", "[0, 2]"});
    write_npy<std::uint64_t>(npy_, "<u8", "(1, 2)", {0, ~std::uint64_t{0}});
    expect_refused(npy_, {"[0, 1]"});
    write_npy<std::int64_t>(npy_, "<i8", "(1, 2)", {0, std::int64_t{1} << 32});  // 0 when cut to 32 bits
    expect_refused(npy_, {"4294967296", "[0, 1]"});
    write_hdf5<std::int64_t>(hdf5_, H5T_NATIVE_INT64, {1, 2}, {0, -7});
    expect_refused(hdf5_, {"tokens.h5", "-7", "[0, 1]"});
    write_hdf5<std::uint64_t>(hdf5_, H5T_NATIVE_UINT64, {1, 2}, {0, ~std::uint64_t{0}});
    expect_refused(hdf5_, {"[0, 1]"});
}

TEST_F(TokenFile, RefusesEmptyAndOtherShapes) {
    write_npy<std::int32_t>(npy_, "<i4", "(0, 3)", {});
    expect_refused(npy_, {"tokens.npy", "no token ids"});
    write_npy<std::int32_t>(npy_, "<i4", "(1, 2, 2)", {1, 2, 3, 4});
    expect_refused(npy_, {"tokens.npy", "3 dimensions"});
    write_npy<std::int32_t>(npy_, "<i4", "()", {1});
    expect_refused(npy_, {"tokens.npy", "0 dimensions"});
    write_hdf5<std::int32_t>(hdf5_, H5T_NATIVE_INT32, {3, 0}, {});
    expect_refused(hdf5_, {"tokens.h5", "no token ids"});
    write_hdf5<std::int32_t>(hdf5_, H5T_NATIVE_INT32, {1, 1, 2}, {1, 2});
    expect_refused(hdf5_, {"tokens.h5", "3 dimensions"});
}

TEST_F(TokenFile, RefusesOtherTypesAndOtherFiles) {
    write_npy<float>(npy_, "<f4", "(2,)", {1, 2});
    expect_refused(npy_, {"tokens.npy", "integer"});
    write_hdf5<float>(hdf5_, H5T_NATIVE_FLOAT, {2}, {1, 2});
    expect_refused(hdf5_, {"tokens.h5", "/input_ids", "integers"});
    write_hdf5<std::int32_t>(hdf5_, H5T_NATIVE_INT32, {2}, {1, 2}, "tokens");
    expect_refused(hdf5_, {"tokens.h5", "/input_ids", "missing"});
    write_file(npy_, "PK\x03\x04 an archive");
    expect_refused(npy_, {"tokens.npy", "neither"});
    write_file(npy_, "\x93NUM");
    expect_refused(npy_, {"tokens.npy", "4 bytes"});
    expect_refused(folder_.path() / "absent.npy", {"absent.npy", "cannot be opened"});
    write_npy<std::int32_t>(npy_, "<i4", "(3,)", {1, 2});
    expect_refused(npy_, {"tokens.npy", "12", "8"});
}

TEST_F(TokenFile, TextIsRefusedWithTheCommandThatMakesTokensOfIt) {
    const auto command = [&](const std::string& name, const std::string& content, TokenPurpose purpose) {
        const std::filesystem::path file = folder_.path() / name;
        write_file(file, content);
        const std::string kind = purpose == TokenPurpose::calibration ? "calibration" : "evaluation";
        const std::string words = "jobs/prepare_tokens.py " + kind + " --tokenizer MODEL_FOLDER --text " +
                                  file.string() + " --output " +
                                  (folder_.path() / name.substr(0, name.find('.'))).string();
        expect_input_error({"holds text, not token ids", words.c_str(), ".h5"},
                           [&] { read_token_file(file, 100, purpose); });
    };
    command("c4.jsonl", "{\"text\": \"x\"}\n", TokenPurpose::calibration);
    command("c4.json.gz", "\x1f\x8b\x08\x01\x02\x03\x04\x05\x06", TokenPurpose::calibration);
    command("c4.parquet", "PAR1\x01\x02\x03\x04", TokenPurpose::evaluation);
    command("wiki.txt", "Robert Boulter is an English actor", TokenPurpose::evaluation);
    command("short.txt", "x", TokenPurpose::evaluation);
    command("table.csv", "text\nx\n", TokenPurpose::calibration);
    command("unnamed", "plain text\n\tin a file without an ending \xc3\xa4", TokenPurpose::evaluation);
    write_file(folder_.path() / "c4.jsonl", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
    expect_refused(folder_.path() / "c4.jsonl", {"git-lfs"});
}

}  // namespace
}  // namespace espalier
