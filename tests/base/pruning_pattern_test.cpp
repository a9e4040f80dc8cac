#include "src/base/pruning_pattern.h"

#include "tests/support/expect.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

TEST(PruningPattern, ParsesGroups) {
    const PruningPattern two_of_four = PruningPattern::parse("2:4", 0.9);
    EXPECT_EQ(two_of_four.keep, 2U);
    EXPECT_EQ(two_of_four.group, 4U);
    EXPECT_EQ(two_of_four.sparsity, 0.5);  // the pattern's own, whatever was given
    EXPECT_TRUE(two_of_four.structured());
    EXPECT_EQ(two_of_four.name(), "2:4");
    EXPECT_EQ(PruningPattern::parse("3:8", 0.5).sparsity, 0.625);
    EXPECT_EQ(PruningPattern::parse("20:32", 0.5).removed_per_row(4096), 128U * 12U);
}

TEST(PruningPattern, ParsesUnstructured) {
    const PruningPattern pattern = PruningPattern::parse("unstructured", 0.6);
    EXPECT_FALSE(pattern.structured());
    EXPECT_EQ(pattern.name(), "unstructured");
    EXPECT_EQ(pattern.removed_per_row(10), 6U);
}

TEST(PruningPattern, RemovesTheDecimalShareRoundedDown) {
    const auto removed = [](double sparsity, std::size_t columns) {
        return PruningPattern::parse("unstructured", sparsity).removed_per_row(columns);
    };
    EXPECT_EQ(removed(0.29, 100), 29U);  // in double arithmetic 28.999999999999996
    EXPECT_EQ(removed(0.5, 7), 3U);
    EXPECT_EQ(removed(0.999, 999), 998U);
    EXPECT_EQ(removed(0.001, 999), 0U);
    // Every percentage of every width: integer arithmetic is the reference.
    for (std::size_t percent = 1; percent < 100; ++percent) {
        for (const std::size_t columns : {1U, 3U, 64U, 100U, 127U, 4096U, 11008U, 13824U}) {
            EXPECT_EQ(removed(static_cast<double>(percent) / 100, columns), columns * percent / 100)
                << percent << " % of " << columns;
        }
    }
}

TEST(PruningPattern, RefusesWhatIsNoPattern) {
    for (const char* const text : {"", "2", "2:", ":4", "4:4", "5:4", "0:4", "-2:4", "+2:4", "2:4:8", "2:4 ", " 2:4",
                                   "2.0:4", "2:65537", "2/4", "Unstructured", "99999999999999999999:4"}) {
        support::expect_input_error({"--pattern", "0 < N < M"}, [&] { PruningPattern::parse(text, 0.5); });
    }
}

TEST(PruningPattern, RefusesSparsityOutsideOfZeroToOne) {
    for (const double sparsity : {0.0, 1.0, -0.5, 1.5, std::nan("")}) {
        support::expect_input_error({"--sparsity", "between 0 and 1"},
                                    [&] { PruningPattern::parse("unstructured", sparsity); });
    }
    EXPECT_NO_THROW(PruningPattern::parse("2:4", 0.0));  // not used there
}

}  // namespace
}  // namespace espalier
