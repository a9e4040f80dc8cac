// What the user is told about an exception.
#include "src/base/error.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <new>

namespace espalier {
namespace {

template <typename Thrown>
Error told_about(const Thrown& thrown) {
    return as_error(std::make_exception_ptr(thrown));
}

TEST(AsError, KeepsOurOwnErrors) {
    const Error error = told_about(Error(ExitStatus::resources, "the disk is full", 3));
    EXPECT_EQ(error.status(), ExitStatus::resources);
    EXPECT_STREQ(error.what(), "the disk is full");
    EXPECT_EQ(error.rank(), 3);
    EXPECT_EQ(told_about(InputError("x")).rank(), std::nullopt);
}

TEST(AsError, NamesTheFileOfAFilesystemError) {
    const Error error = told_about(std::filesystem::filesystem_error(
        "cannot open", "some/file", std::make_error_code(std::errc::permission_denied)));
    EXPECT_EQ(error.status(), ExitStatus::input);
    EXPECT_STREQ(error.what(), "some/file: Permission denied");
}

TEST(AsError, MemoryIsAResourceAndTheRestABug) {
    EXPECT_EQ(told_about(std::bad_alloc()).status(), ExitStatus::resources);
    EXPECT_EQ(told_about(std::out_of_range("map::at")).status(), ExitStatus::bug);
    EXPECT_STREQ(told_about(std::out_of_range("map::at")).what(), "internal error: map::at");
    EXPECT_EQ(told_about(7).status(), ExitStatus::bug);
}

TEST(ErrorLine, IsOneLine) {
    EXPECT_EQ(error_line(InputError("a\nb\tc"), {}), "espalier: a?b?c\n");
    EXPECT_EQ(error_line(InputError("sentence"), 12), "espalier: rank 12: sentence\n");
}

TEST(ErrorLine, IsBounded) {
    const std::string line = error_line(InputError("begin" + std::string(5000, 'x') + "end"), {});
    EXPECT_LT(line.size(), 900U);
    EXPECT_TRUE(line.starts_with("espalier: begin") && line.ends_with("xend\n"));
    EXPECT_NE(line.find("x ... x"), std::string::npos);
}

}  // namespace
}  // namespace espalier
