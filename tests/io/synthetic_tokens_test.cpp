// Token ids that are made up.
#include "io/synthetic_tokens.h"

#include "tests/support/expect.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace espalier {
namespace {

using namespace support;

TEST(SyntheticTokens, HaveTheShapeOfTheirName) {
    const TokenTable table = make_synthetic_tokens("synthetic:3x50", 7);
    EXPECT_EQ(table.rows, 3U);
    EXPECT_EQ(table.columns, 50U);
    ASSERT_EQ(table.ids.size(), 150U);
    EXPECT_EQ(*std::min_element(table.ids.begin(), table.ids.end()), 0);
    EXPECT_EQ(*std::max_element(table.ids.begin(), table.ids.end()), 6);
    const TokenTable longer = make_synthetic_tokens("synthetic:4x50", 7);
    EXPECT_TRUE(std::equal(table.ids.begin(), table.ids.end(), longer.ids.begin()));
    EXPECT_NE(table.sha256, longer.sha256);
    EXPECT_EQ(read_token_file("synthetic:3x50", 7, TokenPurpose::calibration).ids, table.ids);
}

TEST(SyntheticTokens, RefusesOtherNames) {
    for (const char* const name : {"synthetic:", "synthetic:3", "synthetic:3x", "synthetic:0x5", "synthetic:3x5x2",
                                   "synthetic:99999999x99999999", "synthetic:-3x5"}) {
        expect_error(ExitStatus::input, {"SAMPLESxTOKENS"}, [&] { make_synthetic_tokens(name, 7); });
    }
}

}  // namespace
}  // namespace espalier
