// HDF5 files written and read back bit for bit.
#include "io/hdf5_handle.h"

#include "io/hdf5_open.h"
#include "src/base/error.h"
#include "tests/support/expect.h"
#include "tests/support/random.h"
#include "tests/support/temporary_folder.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>

namespace espalier {
namespace {

using namespace support;

/// Every 16-bit pattern, or float32 patterns with signalling and quiet NaNs among them.
std::vector<std::byte> all_patterns(DType dtype) {
    std::vector<std::byte> data;
    for (std::uint32_t i = 0; i < 65536; ++i) {
        const std::uint32_t bits = dtype == DType::f32 ? (i << 16 | ((i * 2654435761u) & 0xffff)) : i;
        const auto* const begin = reinterpret_cast<const std::byte*>(&bits);  // little-endian, as the files are
        data.insert(data.end(), begin, begin + bytes_of(dtype));
    }
    return data;
}

TEST(Hdf5, RoundTripIsBitForBitForEveryType) {
    const TemporaryFolder folder;
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::u8}) {
        const std::vector<std::byte> data = all_patterns(dtype);
        Hdf5Writer writer(folder.path() / "f.h5");
        writer.write("/a/b/weight", dtype, {256, 256}, data);
        writer.write("/vector", dtype, {65536}, data);
        writer.close();
        const Hdf5Reader reader(folder.path() / "f.h5");
        EXPECT_EQ(reader.info("/a/b/weight").dtype, dtype);
        EXPECT_EQ(reader.info("/a/b/weight").shape, (std::vector<std::uint64_t>{256, 256}));
        for (const char* const name : {"/a/b/weight", "/vector"}) {
            std::vector<std::byte> back(data.size());
            reader.read(name, back);
            EXPECT_TRUE(back == data) << name << " as " << name_of(dtype);
        }
    }
}

TEST(Hdf5, RowsInPieces) {
    const TemporaryFolder folder;
    const std::size_t rows = 700, columns = 3000;  // 8 MB: several chunks
    std::vector<float> values = Random(1).normals(rows * columns);
    const auto data = std::as_bytes(std::span(values));
    const std::size_t row_bytes = columns * 4;
    {
        Hdf5Writer writer(folder.path() / "f.h5");
        writer.create("/w", DType::f32, {rows, columns});
        for (std::size_t first = 0; first < rows; first += 211) {
            const std::size_t count = std::min<std::size_t>(211, rows - first);
            writer.write_rows("/w", first, count, data.subspan(first * row_bytes, count * row_bytes));
        }
        writer.close();
    }
    const Hdf5Reader reader(folder.path() / "f.h5");
    std::vector<std::byte> piece(13 * row_bytes);
    for (const std::size_t first : {0U, 340U, 687U}) {
        reader.read_rows("/w", first, 13, piece);
        EXPECT_TRUE(
            std::equal(piece.begin(), piece.end(), data.begin() + static_cast<std::ptrdiff_t>(first * row_bytes)));
    }
    expect_input_error({"/w", "expected shape"}, [&] { reader.read_rows("/w", 690, 13, piece); });
    expect_input_error({"/w", "expected shape"}, [&] { reader.read("/w", piece); });
}

TEST(Hdf5, EmptyDatasets) {
    const TemporaryFolder folder;
    Hdf5Writer writer(folder.path() / "f.h5");
    writer.write("/none", DType::f32, {0, 4}, {});
    writer.close();
    const Hdf5Reader reader(folder.path() / "f.h5");
    EXPECT_EQ(reader.info("/none").shape, (std::vector<std::uint64_t>{0, 4}));
    reader.read("/none", {});
}

std::string file_with_content(const std::filesystem::path& path, float scale) {
    const std::vector<float> values = Random(2).normals(5000, static_cast<double>(scale));
    Hdf5Writer writer(path);
    writer.write("/model/a", DType::f32, {50, 100}, std::as_bytes(std::span(values)));
    writer.write("/model/b", DType::bf16, {5000}, std::as_bytes(std::span(values)).first(10000));
    writer.attribute("/", "name", "text with \xc3\xa9");
    writer.attribute("/model/a", "count", std::int64_t{-3});
    writer.close();
    return read_file(path);
}

TEST(Hdf5, EqualContentGivesEqualBytes) {
    const TemporaryFolder folder;
    const std::string first = file_with_content(folder.path() / "a.h5", 1);
    ::usleep(1100000);  // HDF5's times have seconds
    EXPECT_TRUE(first == file_with_content(folder.path() / "b.h5", 1));
    EXPECT_FALSE(first == file_with_content(folder.path() / "c.h5", 2));
}

TEST(Hdf5, AFlippedByteInTheDataIsNoticed) {
    const TemporaryFolder folder;
    const std::vector<float> values = Random(3).normals(10000);
    const auto path = folder.path() / "f.h5";
    Hdf5Writer writer(path);
    writer.write("/w", DType::f32, {100, 100}, std::as_bytes(std::span(values)));
    writer.close();
    std::string content = read_file(path);
    const std::string stored(reinterpret_cast<const char*>(values.data() + 5000), 64);
    const std::size_t place = content.find(stored);
    ASSERT_NE(place, std::string::npos);
    content[place + 17] = static_cast<char>(content[place + 17] ^ 4);
    write_file(path, content);
    const Hdf5Reader reader(path);
    std::vector<std::byte> back(values.size() * 4);
    expect_input_error({"f.h5", "/w", "damaged"}, [&] { reader.read("/w", back); });
}

TEST(Hdf5, Attributes) {
    const TemporaryFolder folder;
    file_with_content(folder.path() / "f.h5", 1);
    const Hdf5Reader reader(folder.path() / "f.h5");
    EXPECT_EQ(reader.attribute("/", "name"), "text with \xc3\xa9");
    expect_input_error({"absent", "missing"}, [&] { static_cast<void>(reader.attribute("/", "absent")); });
    expect_input_error({"count", "string"}, [&] { static_cast<void>(reader.attribute("/model/a", "count")); });
}

TEST(Hdf5, ExternalLinksAreRelative) {
    const TemporaryFolder folder;
    std::filesystem::create_directory(folder.path() / "blocks");
    const std::vector<float> values = {1, 2, 3};
    Hdf5Writer target(folder.path() / "blocks/0.h5");
    target.write("/x/y", DType::f32, {3}, std::as_bytes(std::span(values)));
    target.close();
    Hdf5Writer linking(folder.path() / "all.h5");
    linking.external_link("/model/x", "blocks/0.h5", "/x");
    linking.close();
    const auto moved = folder.path() / "moved";
    std::filesystem::create_directory(moved);
    std::filesystem::rename(folder.path() / "blocks", moved / "blocks");
    std::filesystem::rename(folder.path() / "all.h5", moved / "all.h5");
    std::vector<float> back(3);
    Hdf5Reader(moved / "all.h5").read("/model/x/y", std::as_writable_bytes(std::span(back)));
    EXPECT_EQ(back, values);
}

TEST(Hdf5, Contains) {
    const TemporaryFolder folder;
    file_with_content(folder.path() / "f.h5", 1);
    const Hdf5Reader reader(folder.path() / "f.h5");
    EXPECT_TRUE(reader.contains("/model"));
    EXPECT_TRUE(reader.contains("/model/a"));
    EXPECT_FALSE(reader.contains("/model/c"));
    EXPECT_FALSE(reader.contains("/absent/group/a"));
    expect_input_error({"/model/c", "missing"}, [&] { static_cast<void>(reader.info("/model/c")); });
    expect_input_error({"/model", "dataset"}, [&] { static_cast<void>(reader.info("/model")); });
}

TEST(Hdf5, WhatDoesNotOpenSaysWhy) {
    const TemporaryFolder folder;
    const auto refused = [&](const char* name, std::initializer_list<const char*> words) {
        expect_input_error(words, [&] { Hdf5Reader(folder.path() / name); });
    };
    refused("absent.h5", {"absent.h5", "cannot be opened", "No such file"});
    std::filesystem::create_symlink("loop.h5", folder.path() / "loop.h5");
    refused("loop.h5", {"loop.h5", "cannot be opened", "symbolic links"});
    std::filesystem::create_directory(folder.path() / "folder.h5");
    refused("folder.h5", {"folder.h5", "not a regular file"});
    write_file(folder.path() / "text.h5", "not HDF5");
    refused("text.h5", {"text.h5", "is not an HDF5 file"});
    write_file(folder.path() / "empty.h5", "");
    refused("empty.h5", {"empty.h5", "is not an HDF5 file"});
    const std::string whole = file_with_content(folder.path() / "f.h5", 1);
    write_file(folder.path() / "cut.h5", whole.substr(0, whole.size() / 2));
    refused("cut.h5", {"cut.h5", "damaged", "still being written", "truncated"});
}

TEST(Hdf5, LocksOfOthersDoNotMatter) {
    const TemporaryFolder folder;
    file_with_content(folder.path() / "f.h5", 1);
    const int other = open((folder.path() / "f.h5").c_str(), O_RDWR);
    ASSERT_EQ(flock(other, LOCK_EX | LOCK_NB), 0);
    EXPECT_TRUE(Hdf5Reader(folder.path() / "f.h5").contains("/model/a"));
    EXPECT_NO_THROW(Hdf5Writer(folder.path() / "f.h5").close());
    close(other);
}

TEST(Hdf5, AFileThatSomebodyElseLocksIsNotCalledDamaged) {
    const TemporaryFolder folder;
    const std::filesystem::path path = folder.path() / "f.h5";
    file_with_content(path, 1);
    const int other = open(path.c_str(), O_RDWR);
    ASSERT_EQ(flock(other, LOCK_EX | LOCK_NB), 0);
    {
        const auto lock = lock_hdf5();
        const Hdf5Handle locking(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
        ASSERT_GE(H5Pset_file_locking(locking.id(), true, true), 0);
        ASSERT_LT(H5Fopen(path.c_str(), H5F_ACC_RDWR, locking.id()), 0);
        const std::string sentence = describe_failed_open(path);
        EXPECT_NE(sentence.find("is locked by another program"), std::string::npos) << sentence;
    }
    close(other);
}

TEST(Hdf5, WritingFailuresAreResourceErrors) {
    const TemporaryFolder folder;
    expect_error(ExitStatus::resources, {"cannot be created: No such file"},
                 [&] { Hdf5Writer(folder.path() / "no/such/f.h5"); });
    Hdf5Writer writer(folder.path() / "f.h5");
    writer.create("/w", DType::f32, {1, 1});
    expect_error(ExitStatus::resources, {"f.h5", "/w"}, [&] { writer.create("/w", DType::f32, {1, 1}); });
}

}  // namespace
}  // namespace espalier
