// A file that is memory, and of which nothing is left.
#include "io/scratch_file.h"

#include "tests/support/expect.h"
#include "tests/support/temporary_folder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace espalier {
namespace {

using namespace support;

TEST(ScratchFile, GivesBackWhatItWasGivenAndHasNoName) {
    const TemporaryFolder folder;
    ScratchFile file(folder.path() / "state");
    EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
    std::vector<std::byte> written((std::size_t{3} << 20) + 5);  // several pieces
    for (std::size_t i = 0; i < written.size(); ++i) written[i] = static_cast<std::byte>(i * 7919 >> 3);
    file.write(11, written);
    std::vector<std::byte> read(written.size() - 1);
    file.read(12, read);
    EXPECT_TRUE(std::equal(read.begin(), read.end(), written.begin() + 1));
    expect_error(ExitStatus::resources, {"state", "cannot be read"}, [&] { file.read(written.size(), read); });
}

TEST(ScratchFile, FailuresAreResourceErrors) {
    const TemporaryFolder folder;
    // The device that is always full.
    std::filesystem::create_symlink("/dev/full", folder.path() / "full");
    expect_error(ExitStatus::resources, {"full", "No space left"}, [&] {
        ScratchFile file(folder.path() / "full");
        file.write(0, std::vector<std::byte>(100));
    });
    expect_error(ExitStatus::resources, {"nowhere/state", "cannot be created"},
                 [&] { const ScratchFile file(folder.path() / "nowhere" / "state"); });
}

}  // namespace
}  // namespace espalier
