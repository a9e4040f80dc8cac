#include "src/base/strict_json.h"

#include "tests/support/expect.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using support::expect_input_error;

std::string nested(std::size_t levels) {
    return std::string(levels, '[') + std::string(levels, ']');
}

TEST(StrictJson, AcceptsJson) {
    const Json json = parse_strict_json(" {\"a\": [1, {\"a\": -2.5}], \"b\": {\"a\": null}}\n", "f");
    EXPECT_EQ(json["a"][0], 1);
    EXPECT_EQ(json["a"][1]["a"], -2.5);
    EXPECT_TRUE(json["b"]["a"].is_null());  // equal keys of different objects are not twice
    EXPECT_EQ(parse_strict_json("3", "f"), 3);
}

TEST(StrictJson, RefusesDuplicateKeysAtAnyDepth) {
    expect_input_error({"file.json", "\"a\"", "twice"},
                       [] { parse_strict_json(R"({"a":1,"b":2,"a":3})", "file.json"); });
    expect_input_error({"file.json", "\"x\"", "twice"},
                       [] { parse_strict_json(R"([{"y":[{"x":1,"x":1}]}])", "file.json"); });
    // Escapes do not hide a repetition.
    expect_input_error({"twice"}, [] { parse_strict_json(R"({"a":1,"\u0061":2})", "file.json"); });
}

TEST(StrictJson, BoundsTheDepth) {
    EXPECT_NO_THROW(parse_strict_json(nested(64), "f"));
    expect_input_error({"file.json", "deeper than 64"}, [] { parse_strict_json(nested(65), "file.json"); });
    expect_input_error({"file.json"}, [] { parse_strict_json(std::string(1000000, '['), "file.json"); });
}

TEST(StrictJson, RefusesWhatIsNotOneValue) {
    for (const char* const text : {"", " ", "{", "{} {}", "{},", "[1,]", "{\"a\":1,}", "nul", "// c\n1", "'a'", "{a:1}",
                                   "\"\x80\"", "01", "+1", "NaN", "1e999"}) {
        expect_input_error({"file.json", "not valid JSON"}, [&] { parse_strict_json(text, "file.json"); });
    }
}

TEST(StrictJson, RefusesWhatStandsBehindANul) {
    expect_input_error({"file.json"}, [] { parse_strict_json(std::string_view("{}\0", 3), "file.json"); });
    expect_input_error({"file.json"}, [] { parse_strict_json(std::string_view("{}\0{\"a\":1}", 10), "file.json"); });
}

}  // namespace
}  // namespace espalier
