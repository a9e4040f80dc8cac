// Reads at offsets, and files that appear complete or not at all.
#include "io/file.h"

#include "src/base/error.h"
#include "tests/support/expect.h"
#include "tests/support/temporary_folder.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using namespace support;

TEST(InputFile, ReadsAtAnyOffset) {
    const TemporaryFolder folder;
    write_file(folder.path() / "f", "0123456789");
    InputFile file(folder.path() / "f");
    EXPECT_EQ(file.size(), 10U);
    std::string text(4, ' ');
    file.read(3, std::as_writable_bytes(std::span(text)));
    EXPECT_EQ(text, "3456");
    file.read(10, {});
    const InputFile moved = std::move(file);
    moved.read(6, std::as_writable_bytes(std::span(text)));
    EXPECT_EQ(text, "6789");
}

TEST(InputFile, ReadingBeyondTheEndIsAnError) {
    const TemporaryFolder folder;
    write_file(folder.path() / "f", "0123456789");
    const InputFile file(folder.path() / "f");
    std::string text(4, ' ');
    expect_input_error({"ends at byte 10", "1 more"}, [&] { file.read(7, std::as_writable_bytes(std::span(text))); });
    // A file that is cut while it is open: an error, not a signal.
    std::filesystem::resize_file(folder.path() / "f", 2);
    expect_input_error({"ends at byte 2"}, [&] { file.read(0, std::as_writable_bytes(std::span(text))); });
}

TEST(InputFile, RefusesWhatIsNoFile) {
    const TemporaryFolder folder;
    expect_input_error({"absent", "cannot be opened"}, [&] { InputFile(folder.path() / "absent"); });
    expect_input_error({"not a regular file"}, [&] { InputFile file(folder.path()); });
}

TEST(ReadText, RefusesLargeFiles) {
    const TemporaryFolder folder;
    write_file(folder.path() / "f", "0123456789");
    EXPECT_EQ(read_text(folder.path() / "f", 10), "0123456789");
    expect_input_error({"10 bytes", "at most 9"}, [&] { static_cast<void>(read_text(folder.path() / "f", 9)); });
}

TEST(AtomicFile, AppearsCompleteOrNotAtAll) {
    const TemporaryFolder folder;
    const auto path = folder.path() / "f";
    write_file(path, "before");
    {
        AtomicFile file(path);
        file.write("half");
        EXPECT_EQ(read_file(path), "before");
    }
    EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"f"}) << "without commit nothing is left";
    EXPECT_EQ(read_file(path), "before");
    AtomicFile file(path);
    file.write("af");
    file.write("ter");
    file.commit();
    EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"f"});
    EXPECT_EQ(read_file(path), "after");
    write_text_atomically(path, "text");
    EXPECT_EQ(read_file(path), "text");
}

TEST(AtomicFile, FailuresAreResourceErrors) {
    expect_error(ExitStatus::resources, {"cannot be created"}, [] { AtomicFile("/nonexistent_folder/f"); });
    // The device that is always full.
    const TemporaryFolder folder;
    std::filesystem::create_symlink("/dev/full", folder.path() / "f.tmp");
    expect_error(ExitStatus::resources, {"No space left"}, [&] {
        AtomicFile file(folder.path() / "f");
        file.write("content");
        file.commit();
    });
    expect_error(ExitStatus::resources, {"cannot be renamed"},
                 [&] { rename_durably(folder.path() / "absent", folder.path() / "other"); });
    expect_error(ExitStatus::resources, {"cannot be opened"}, [&] { sync_file(folder.path() / "absent"); });
    expect_error(ExitStatus::resources, {"cannot be opened"}, [&] { sync_folder(folder.path() / "absent"); });
}

// What a file system answers is in tests/cli/test_mounts.py.
TEST(CopyDurably, CopiesContentOnly) {
    const TemporaryFolder folder;
    const std::string content = std::string((std::size_t{9} << 20) + 5, 'x') + "end";  // several pieces
    write_file(folder.path() / "f", content);
    std::filesystem::permissions(folder.path() / "f", std::filesystem::perms::owner_read);
    write_file(folder.path() / "empty", "");
    copy_durably(folder.path() / "f", folder.path() / "copy");
    copy_durably(folder.path() / "empty", folder.path() / "empty copy");
    EXPECT_EQ(read_file(folder.path() / "copy"), content);
    EXPECT_EQ(read_file(folder.path() / "empty copy"), "");
    EXPECT_NE(std::filesystem::status(folder.path() / "copy").permissions() & std::filesystem::perms::owner_write,
              std::filesystem::perms::none);
    expect_input_error({"absent", "cannot be opened"},
                       [&] { copy_durably(folder.path() / "absent", folder.path() / "g"); });
    EXPECT_FALSE(std::filesystem::exists(folder.path() / "g"));
}

}  // namespace
}  // namespace espalier
