#include "src/base/json.h"

#include "tests/support/expect.h"

#include <gtest/gtest.h>

#include <limits>

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

TEST(Json, BracesMakeObjectsOfPairsAndArraysOfOthers) {
    EXPECT_EQ((Json{{"a", 1}, {"b", {1, 2}}, {"c", {{"d", true}}}}).dump(), R"({"a":1,"b":[1,2],"c":{"d":true}})");
    EXPECT_EQ((Json{1, "two", 3.5, nullptr, false}).dump(), R"([1,"two",3.5,null,false])");
    EXPECT_EQ(Json(std::vector<std::size_t>{7, 8}).dump(), "[7,8]");
    EXPECT_EQ(Json(std::map<std::string, std::string>{{"k", "v"}}).dump(), R"({"k":"v"})");
}

TEST(Json, NumbersKeepTheirDigits) {
    for (const char* const text :
         {"0", "-1", "18446744073709551615", "-9223372036854775808", "0.1", "3e-07", "1.0", "1e+300"}) {
        EXPECT_EQ(Json::parse(text).dump(), text);
    }
    EXPECT_EQ(Json{std::numeric_limits<double>::quiet_NaN()}.dump(), "[null]");
    EXPECT_LE(sizeof(Json), 16U);
}

TEST(Json, ComparesNumbersOfEveryKind) {
    EXPECT_EQ(Json(1), Json(1.0));
    EXPECT_EQ(Json(-1), Json(-1.0));
    EXPECT_NE(Json(1), Json("1"));
    EXPECT_NE(Json(), Json(0));
    EXPECT_NE(Json(1), Json(true));
}

TEST(Json, CopiesAreTheirOwn) {
    Json first{{"a", {1, 2}}};
    Json second = first;
    second["a"].push_back(3);
    second["b"] = "new";
    EXPECT_EQ(first.dump(), R"({"a":[1,2]})");
    EXPECT_EQ(second.dump(), R"({"a":[1,2,3],"b":"new"})");
    first = std::move(second);
    EXPECT_EQ(first.size(), 2U);
    first["a"].erase(0);
    first.erase("b");
    EXPECT_EQ(first, (Json{{"a", {2, 3}}}));
    first = first["a"];  // a part of itself
    EXPECT_EQ(first, (Json{2, 3}));
    const Json& same = first;
    first = same;
    EXPECT_EQ(first, (Json{2, 3}));
}

TEST(Json, WhatIsAskedForAndNotThereIsNamed) {
    const Json json{{"a", "text"}, {"n", -1}, {"x", 1.5}};
    const auto expect_error = [](const auto& ask, const char* words) {
        try {
            ask();
            ADD_FAILURE() << "nothing thrown: " << words;
        } catch (const Json::Error& error) {
            EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
        }
    };
    expect_error([&] { static_cast<void>(json.at("b")); }, "'b'");
    expect_error([&] { static_cast<void>(json.at("a").at("b")); }, "text");
    expect_error([&] { static_cast<void>(json.at(0)); }, "an array");
    expect_error([&] { static_cast<void>(json["a"].get<double>()); }, "a number");
    expect_error([&] { static_cast<void>(json["n"].get<std::size_t>()); }, "from 0");
    expect_error([&] { static_cast<void>(json["x"].get<int>()); }, "an integer");
    expect_error([&] { static_cast<void>(json["n"].get<bool>()); }, "true or false");
    expect_error([&] { static_cast<void>(Json::array().back()); }, "an array of 0 elements");
    EXPECT_EQ(json["n"].get<int>(), -1);
    EXPECT_EQ(json.value("n", 0), -1);
    EXPECT_EQ(json.value("other", 5), 5);
    EXPECT_EQ(json.find("other"), nullptr);
}

TEST(Json, MessagesAreAscii) {
    EXPECT_EQ(Json("\xc3\xa4").ascii(), R"("\u00e4")");
    EXPECT_EQ(Json("\xff").ascii(), R"("\ufffd")");
    EXPECT_THROW(static_cast<void>(Json("\xff").dump()), Json::Error);
}

TEST(Json, ATornTextIsNull) {
    EXPECT_TRUE(Json::parse_or_null("{\"a\":").is_null());
    EXPECT_EQ(Json::parse_or_null("[1]"), Json::array({1}));
}

TEST(WithJsonField, KeepsTheOrderOfKeys) {
    EXPECT_EQ(with_json_field(R"({"z": 1, "dtype": "f", "a": {"y": 1, "b": 2}})", "f", "dtype", "g"),
              "{\n  \"z\": 1,\n  \"dtype\": \"g\",\n  \"a\": {\n    \"y\": 1,\n    \"b\": 2\n  }\n}");
    expect_input_error({"file.json", "object"},
                       [] { static_cast<void>(with_json_field("[]", "file.json", "a", "b")); });
}

}  // namespace
}  // namespace espalier
