// Headers of .npy files, versions 1 to 3.
#include "io/npy.h"

#include "src/base/error.h"
#include "tests/support/expect.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using support::expect_input_error;

std::string npy_file(int version, const std::string& dictionary, std::size_t data_bytes) {
    std::string file = "\x93NUMPY";
    file += static_cast<char>(version);
    file += '\0';
    for (int i = 0; i < (version == 1 ? 2 : 4); ++i) file += static_cast<char>((dictionary.size() >> (8 * i)) & 0xff);
    return file + dictionary + std::string(data_bytes, '\1');
}

NpyHeader parse(const std::string& file) {
    return parse_npy_header(std::as_bytes(std::span(file)), file.size(), "tokens.npy");
}

std::string dictionary(const std::string& descr, const std::string& order, const std::string& shape) {
    return "{'descr': '" + descr + "', 'fortran_order': " + order + ", 'shape': " + shape + ", }    \n";
}

TEST(NpyHeader, AcceptsVersionsOneToThree) {
    for (const int version : {1, 2, 3}) {
        const std::string text = dictionary("<i4", "False", "(2, 3)");
        const NpyHeader header = parse(npy_file(version, text, 24));
        EXPECT_EQ(header.kind, 'i');
        EXPECT_EQ(header.item_bytes, 4U);
        EXPECT_EQ(header.shape, (std::vector<std::uint64_t>{2, 3}));
        EXPECT_EQ(header.data_offset, (version == 1 ? 10U : 12U) + text.size());
    }
}

TEST(NpyHeader, AcceptsEveryIntegerType) {
    for (const char* const descr : {"<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "|i2"}) {
        const NpyHeader header =
            parse(npy_file(1, dictionary(descr, "False", "(5,)"), 5U * static_cast<unsigned>(descr[2] - '0')));
        EXPECT_EQ(header.kind, descr[1]);
        EXPECT_EQ(header.item_bytes, static_cast<std::size_t>(descr[2] - '0'));
        EXPECT_EQ(header.shape, std::vector<std::uint64_t>{5});
    }
}

TEST(NpyHeader, AcceptsOtherSpellingsOfTheDictionary) {
    EXPECT_EQ(parse(npy_file(1, R"({"shape":(3,),"fortran_order":False,"descr":"<i4"})", 12)).shape.size(), 1U);
    EXPECT_TRUE(parse(npy_file(1, dictionary("<i4", "False", "()"), 4)).shape.empty());
    EXPECT_EQ(parse(npy_file(1, dictionary("<i4", "False", "(0, 4)"), 0)).shape[0], 0U);
}

TEST(NpyHeader, RefusesFortranOrder) {
    expect_input_error({"tokens.npy", "Fortran"}, [] { parse(npy_file(1, dictionary("<i4", "True", "(2, 3)"), 24)); });
}

TEST(NpyHeader, RefusesOtherTypes) {
    for (const char* const descr :
         {"|O", ">i4", ">i8", "<f4", "<f8", "|b1", "|u1", "|S4", "<c8", "<i16", "=i4", "i4", ""}) {
        expect_input_error({"tokens.npy", "dtype", "integer"},
                           [&] { parse(npy_file(1, dictionary(descr, "False", "(2,)"), 8)); });
    }
    // A structured type is a list, not a word.
    expect_input_error({"tokens.npy"}, [] {
        parse(npy_file(1, "{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (2,), }", 8));
    });
}

TEST(NpyHeader, RefusesSizesThatDoNotFitTheFile) {
    for (const std::size_t bytes : {0U, 23U, 25U, 48U}) {
        expect_input_error({"tokens.npy", "24", std::to_string(bytes).c_str()},
                           [&] { parse(npy_file(1, dictionary("<i4", "False", "(2, 3)"), bytes)); });
    }
    expect_input_error({"tokens.npy", "overflow"},
                       [] { parse(npy_file(1, dictionary("<i8", "False", "(4294967296, 4294967296)"), 8)); });
    expect_input_error({"tokens.npy", "dimension"},
                       [] { parse(npy_file(1, dictionary("<i8", "False", "(99999999999999999999,)"), 8)); });
}

TEST(NpyHeader, RefusesMalformedHeaders) {
    const std::string good = dictionary("<i4", "False", "(2,)");
    for (const std::string& text :
         {std::string(""), std::string("{"), std::string("{}"), good + "x", good.substr(1),
          std::string("{'descr': '<i4', 'shape': (2,), }"), std::string("{'descr': '<i4', 'fortran_order': False, }"),
          std::string("{'fortran_order': False, 'shape': (2,), }"), dictionary("<i4", "0", "(2,)"),
          dictionary("<i4", "False", "2"), dictionary("<i4", "False", "(-2,)"), dictionary("<i4", "False", "(2.0,)"),
          dictionary("<i4", "False", "(2 3)"), dictionary("<i4", "False", "(2"),
          std::string("{'descr': '<i4', 'descr': '<i4', 'fortran_order': False, 'shape': (2,), }"),
          std::string("{'descr': '<i4', 'fortran_order': False, 'shape': (2,), 'extra': 1, }"),
          std::string("{'descr': '<i4")}) {
        expect_input_error({"tokens.npy", "malformed"}, [&] { parse(npy_file(1, text, 8)); });
    }
}

TEST(NpyHeader, RefusesWrongBeginnings) {
    const std::string good = npy_file(1, dictionary("<i4", "False", "(2,)"), 8);
    expect_input_error({"tokens.npy"}, [&] { parse(""); });
    expect_input_error({"tokens.npy"}, [&] { parse(good.substr(0, 9)); });
    expect_input_error({"tokens.npy", "begin"}, [&] { parse("\x94" + good.substr(1)); });
    expect_input_error({"tokens.npy", "exceeds"}, [&] { parse(good.substr(0, 30)); });
    for (const char version : {'\0', '\4'}) {
        std::string other = good;
        other[6] = version;
        expect_input_error({"tokens.npy", "version"}, [&] { parse(other); });
    }
    expect_input_error({"tokens.npy", "malformed"}, [&] { parse(npy_file(2, "", 0).substr(0, 11)); });
    // A length that only a 32-bit sum could wrap.
    std::string huge = npy_file(2, dictionary("<i4", "False", "(2,)"), 8);
    huge.replace(8, 4, "\xff\xff\xff\xff");
    expect_input_error({"tokens.npy", "exceeds"}, [&] { parse(huge); });
}

}  // namespace
}  // namespace espalier
