// Our checksum against HDF5's filter: chunks that we assemble are read through the library, which checks them.
#include "io/fletcher32.h"

#include "io/hdf5_handle.h"
#include "tests/support/matrix.h"
#include "tests/support/temporary_folder.h"

#include <gtest/gtest.h>

#include <cstring>

namespace espalier {
namespace {

std::vector<std::byte> bytes_of_text(const char* text) {
    std::vector<std::byte> bytes(std::strlen(text));
    std::memcpy(bytes.data(), text, bytes.size());
    return bytes;
}

TEST(Fletcher32, KnownValues) {
    // Words are big-endian, so the published values of "abcde" … are those of swapped bytes.
    EXPECT_EQ(fletcher32(bytes_of_text("badcfehg")), 0xEBE19591U);
    EXPECT_EQ(fletcher32({}), 0U);
    EXPECT_EQ(fletcher32(std::vector<std::byte>(10, std::byte{0})), 0U);
    EXPECT_EQ(fletcher32(std::vector<std::byte>(10, std::byte{0xFF})), 0xFFFFFFFFU);
}

TEST(Fletcher32, TheLibraryAcceptsOurChunks) {
    const support::TemporaryFolder folder;
    support::Random random(3);
    for (const std::uint64_t rows : {1U, 7U, 1000U, 2500U}) {
        for (const std::uint64_t columns : {1U, 3U, 1024U}) {
            std::vector<std::byte> data(rows * columns * 2);
            for (std::byte& byte : data) byte = static_cast<std::byte>(random.below(256));
            const auto path = folder.path() / "file.h5";
            Hdf5Writer file(path, 2);
            file.write("/w", DType::bf16, {rows, columns}, data);
            file.close();
            const Hdf5Reader reader(path);
            std::vector<std::byte> found(data.size());
            reader.read("/w", found);
            EXPECT_EQ(found, data) << rows << " x " << columns;
            EXPECT_TRUE(reader.holds("/w", data, 2));
            data[data.size() / 2] ^= std::byte{1};
            EXPECT_FALSE(reader.holds("/w", data));
            EXPECT_FALSE(reader.holds("/w", std::span(data).first(data.size() - 2)));
        }
    }
}

}  // namespace
}  // namespace espalier
