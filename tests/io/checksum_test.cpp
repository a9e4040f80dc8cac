#include "io/checksum.h"

#include "tests/support/temporary_folder.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

TEST(Checksum, KnownAnswers) {
    EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    EXPECT_EQ(xxh3_128({}), "99aa06d3014798d86001c324468d497f");
}

TEST(Checksum, FilesHashLikeTheirContent) {
    const support::TemporaryFolder folder;
    // More than one piece of 4 MiB, and not a multiple of it.
    for (const std::size_t size : {std::size_t{0}, std::size_t{1}, (std::size_t{9} << 20) + 5}) {
        std::string content(size, '\0');
        for (std::size_t i = 0; i < size; ++i) content[i] = static_cast<char>(i * i >> 3);
        support::write_file(folder.path() / "f", content);
        EXPECT_EQ(sha256_of_file(folder.path() / "f"), sha256(content));
        EXPECT_EQ(xxh3_128_of_file(folder.path() / "f"), xxh3_128(std::as_bytes(std::span(content))));
    }
}

}  // namespace
}  // namespace espalier
