// The strict safetensors header parser: every rule by a header that breaks just this one.
#include "io/safetensors.h"

#include "src/base/error.h"
#include "tests/support/expect.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace espalier {
namespace {

using support::expect_input_error;

SafetensorsHeader parse(const std::string& text, std::uint64_t data_bytes) {
    return parse_safetensors_header(text, 8 + text.size() + data_bytes, "file.safetensors");
}

void expect_refused(const std::string& text, std::uint64_t data_bytes, std::initializer_list<const char*> words) {
    SCOPED_TRACE(text);
    expect_input_error({"file.safetensors"}, [&] { parse(text, data_bytes); });
    expect_input_error(words, [&] { parse(text, data_bytes); });
}

/// One tensor "a" with these fields.
std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return R"({"a":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
}

std::string entry(const std::string& name, std::uint64_t begin, std::uint64_t end) {
    return "\"" + name + R"(":{"dtype":"U8","shape":[)" + std::to_string(end - begin) + R"(],"data_offsets":[)" +
           std::to_string(begin) + "," + std::to_string(end) + "]}";
}

TEST(SafetensorsHeader, Accepts) {
    const SafetensorsHeader header =
        parse(R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,3],"data_offsets":[8,32]},)"
              R"("a":{"dtype":"BF16","shape":[4],"data_offsets":[0,8]}})",
              32);
    EXPECT_EQ(header.tensors.size(), 2U);
    const SafetensorsEntry& b = header.tensors.at("b");
    EXPECT_EQ(b.dtype, "F32");
    EXPECT_EQ(b.shape, (std::vector<std::uint64_t>{2, 3}));
    EXPECT_EQ(b.bytes, 24U);
    EXPECT_EQ(b.begin - header.tensors.at("a").begin, 8U);
    EXPECT_EQ(header.metadata.at("format"), "pt");
    EXPECT_TRUE(header.warnings.empty());
}

TEST(SafetensorsHeader, OffsetsCountFromTheFilesBegin) {
    const std::string text = one("U8", "[5]", "[0,5]");
    EXPECT_EQ(parse(text, 5).tensors.at("a").begin, 8 + text.size());
}

TEST(SafetensorsHeader, AcceptsScalarsEmptyTensorsAndEmptyHeaders) {
    EXPECT_TRUE(parse("{}", 0).tensors.empty());
    EXPECT_EQ(parse(one("F32", "[]", "[0,4]"), 4).tensors.at("a").bytes, 4U);
    EXPECT_EQ(parse(one("F32", "[0]", "[0,0]"), 0).tensors.at("a").bytes, 0U);
    EXPECT_EQ(parse(one("F32", "[3,0,7]", "[0,0]"), 0).tensors.at("a").bytes, 0U);
    // An empty tensor between two others, at the place where they meet.
    EXPECT_EQ(
        parse("{" + entry("x", 0, 4) + "," + entry("empty", 4, 4) + "," + entry("y", 4, 6) + "}", 6).tensors.size(),
        3U);
}

TEST(SafetensorsHeader, AcceptsWhiteSpaceAround) {
    EXPECT_EQ(parse("  \n" + one("U8", "[1]", "[0,1]") + "   \n", 1).tensors.size(), 1U);
}

TEST(SafetensorsHeader, AcceptsUnknownFieldsWithAWarning) {
    const auto header = parse(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"note":3}})", 1);
    ASSERT_EQ(header.warnings.size(), 1U);
    EXPECT_NE(header.warnings[0].find("'note'"), std::string::npos);
}

TEST(SafetensorsHeader, RefusesWhatIsNotAnObject) {
    expect_refused("", 0, {"JSON"});
    expect_refused("[]", 0, {"object"});
    expect_refused("{", 0, {"JSON"});
    expect_refused("{} {}", 0, {"JSON"});
    expect_refused(R"({"a":3})", 0, {"'a'", "object"});
    expect_refused(one("U8", "[1]", "[0,1]") + "x", 1, {"JSON"});
}

TEST(SafetensorsHeader, RefusesDuplicateKeys) {
    expect_refused("{" + entry("a", 0, 1) + "," + entry("a", 0, 1) + "}", 1, {"\"a\"", "twice"});
    expect_refused(R"({"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1, {"\"dtype\"", "twice"});
    expect_refused(R"({"__metadata__":{"x":"1","x":"2"}})", 0, {"\"x\"", "twice"});
}

TEST(SafetensorsHeader, RefusesMissingFields) {
    expect_refused(R"({"a":{"shape":[1],"data_offsets":[0,1]}})", 1, {"'a'", "'dtype'"});
    expect_refused(R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", 1, {"'a'", "'shape'"});
    expect_refused(R"({"a":{"dtype":"U8","shape":[1]}})", 1, {"'a'", "'data_offsets'"});
}

TEST(SafetensorsHeader, RefusesUnknownDtypes) {
    for (const char* const dtype : {"F33", "f32", "", "float32", "F32 "}) {
        expect_refused(one(dtype, "[1]", "[0,4]"), 4, {"'a'", "dtype"});
    }
    expect_refused(R"({"a":{"dtype":32,"shape":[1],"data_offsets":[0,4]}})", 4, {"'a'", "dtype"});
}

TEST(SafetensorsHeader, RefusesWrongShapes) {
    expect_refused(one("U8", "1", "[0,1]"), 1, {"'a'", "shape"});
    for (const char* const shape :
         {"[-1]", "[1.0]", "[1.5]", "[1e0]", "[\"1\"]", "[null]", "[true]", "[[1]]", "[18446744073709551616]"}) {
        expect_refused(one("U8", shape, "[0,1]"), 1, {"'a'", "shape", "integer"});
    }
}

TEST(SafetensorsHeader, RefusesOverflowingShapes) {
    expect_refused(one("U8", "[4294967296,4294967296]", "[0,0]"), 0, {"'a'", "overflow"});
    expect_refused(one("F64", "[2305843009213693952]", "[0,0]"), 0, {"'a'", "overflow"});
    // Elements fit, bits do not; and a zero at the end does not excuse it.
    expect_refused(one("F32", "[576460752303423488,2]", "[0,0]"), 0, {"'a'", "overflow"});
}

TEST(SafetensorsHeader, RefusesSizesOfPartialBytes) {
    expect_refused(one("F4", "[3]", "[0,1]"), 1, {"'a'", "whole number of bytes"});
    EXPECT_EQ(parse(one("F4", "[4]", "[0,2]"), 2).tensors.at("a").bytes, 2U);
}

TEST(SafetensorsHeader, RefusesWrongOffsets) {
    for (const char* const offsets :
         {"[0]", "[0,1,2]", "[]", "3", "{}", "[1,0]", "[0,-1]", "[0.0,1]", "[0,1.0]", "[\"0\",1]", "[null,1]"}) {
        expect_refused(one("U8", "[1]", offsets), 1, {"'a'", "data_offsets"});
    }
}

TEST(SafetensorsHeader, RefusesSizesThatDoNotMatchTheShape) {
    expect_refused(one("F32", "[2]", "[0,4]"), 4, {"'a'", "span 4", "need 8"});
    expect_refused(one("U8", "[0]", "[0,1]"), 1, {"'a'", "span 1", "need 0"});
}

TEST(SafetensorsHeader, RefusesHolesAndOverlaps) {
    expect_refused("{" + entry("a", 0, 2) + "," + entry("b", 3, 5) + "}", 5, {"'b'", "hole"});
    expect_refused("{" + entry("b", 1, 3) + "}", 3, {"'b'", "hole"});
    expect_refused("{" + entry("a", 0, 3) + "," + entry("b", 2, 5) + "}", 5, {"'b'", "overlap"});
    expect_refused("{" + entry("a", 0, 3) + "," + entry("b", 0, 3) + "}", 3, {"overlap"});
    expect_refused("{" + entry("a", 0, 5) + "," + entry("empty", 2, 2) + "}", 5, {"'empty'", "overlap"});
}

TEST(SafetensorsHeader, RefusesDataBeyondTheEndAndDataLeftOver) {
    expect_refused(one("U8", "[6]", "[0,6]"), 5, {"'a'", "6", "only 5"});
    expect_refused(one("U8", "[18446744073709551615]", "[0,18446744073709551615]"), 5, {"'a'"});
    expect_refused(one("U8", "[5]", "[0,5]"), 7, {"2 bytes after"});
    expect_refused("{}", 1, {"1 bytes after"});
}

TEST(SafetensorsHeader, RefusesWrongMetadata) {
    expect_refused(R"({"__metadata__":3})", 0, {"__metadata__", "object"});
    expect_refused(R"({"__metadata__":null})", 0, {"__metadata__"});
    expect_refused(R"({"__metadata__":{"format":1}})", 0, {"__metadata__", "'format'"});
    expect_refused(R"({"__metadata__":{"format":{"a":"b"}}})", 0, {"__metadata__", "'format'"});
}

TEST(SafetensorsHeader, RefusesDeepNesting) {
    expect_refused(R"({"a":)" + std::string(100, '[') + std::string(100, ']') + "}", 0, {"deeper"});
}

std::uint64_t header_bytes(std::uint64_t length, std::uint64_t file_bytes) {
    unsigned char prefix[8];
    for (int i = 0; i < 8; ++i) prefix[i] = static_cast<unsigned char>(length >> (8 * i));
    return safetensors_header_bytes(prefix, file_bytes, "file.safetensors");
}

TEST(SafetensorsHeaderLength, IsBoundedByFileAndFormat) {
    EXPECT_EQ(header_bytes(0, 8), 0U);
    EXPECT_EQ(header_bytes(92, 100), 92U);
    EXPECT_EQ(header_bytes(safetensors_header_limit, std::uint64_t{1} << 40), safetensors_header_limit);
    expect_input_error({"file.safetensors", "93", "100"}, [] { header_bytes(93, 100); });
    expect_input_error({"file.safetensors", "limit"},
                       [] { header_bytes(safetensors_header_limit + 1, std::uint64_t{1} << 40); });
    expect_input_error({"file.safetensors", "limit"}, [] { header_bytes(~std::uint64_t{0}, 100); });
}

TEST(SafetensorsBits, KnowsTheFormatsWords) {
    EXPECT_EQ(safetensors_bits("F32"), 32U);
    EXPECT_EQ(safetensors_bits("BF16"), 16U);
    EXPECT_EQ(safetensors_bits("BOOL"), 8U);
    EXPECT_EQ(safetensors_bits("F4"), 4U);
    EXPECT_EQ(safetensors_bits("bf16"), 0U);
}

TEST(MakeSafetensorsHeader, OfNoTensorsIsAnEmptyObject) {
    const std::string made = make_safetensors_header({}, {});
    EXPECT_TRUE(parse_safetensors_header(std::string_view(made).substr(8), made.size(), "made").tensors.empty());
}

TEST(MakeSafetensorsHeader, ParsesBack) {
    const std::vector<std::pair<std::string, SafetensorsEntry>> tensors = {
        {"model.z \"quoted\" \xc3\xa9", {"BF16", {2, 3}, 0, 12}},
        {"a", {"F32", {}, 0, 4}},
        {"empty", {"F16", {0, 5}, 0, 0}}};
    for (const auto& metadata : {std::map<std::string, std::string>{}, {{"format", "pt"}, {"x", "y z"}}}) {
        const std::string made = make_safetensors_header(tensors, metadata);
        EXPECT_EQ(made.size() % 8, 0U);
        unsigned char prefix[8];
        std::copy_n(made.begin(), 8, prefix);
        ASSERT_EQ(safetensors_header_bytes(prefix, made.size() + 16, "made"), made.size() - 8);
        const SafetensorsHeader header =
            parse_safetensors_header(std::string_view(made).substr(8), made.size() + 16, "made");
        EXPECT_EQ(header.metadata, metadata);
        EXPECT_TRUE(header.warnings.empty());
        ASSERT_EQ(header.tensors.size(), tensors.size());
        std::uint64_t begin = made.size();
        for (const auto& [name, entry] : tensors) {  // laid out in the given order
            EXPECT_EQ(header.tensors.at(name).dtype, entry.dtype);
            EXPECT_EQ(header.tensors.at(name).shape, entry.shape);
            EXPECT_EQ(header.tensors.at(name).bytes, entry.bytes);
            EXPECT_EQ(header.tensors.at(name).begin, begin) << name;
            begin += entry.bytes;
        }
    }
}

}  // namespace
}  // namespace espalier
