#include "io/npy.h"

#include "src/base/error.h"

#include <cctype>
#include <charconv>
#include <cstring>
#include <string_view>
#include <utility>

namespace espalier {

namespace {

/// The header's Python literal: {'descr': '<i4', 'fortran_order': False, 'shape': (2, 3), }. Only this form is
/// accepted.
class Literal {
  public:
    Literal(std::string_view text, const std::string& source) : rest_(text), source_(source) {}

    bool accept(char wanted) {
        skip_space();
        if (rest_.empty() || rest_.front() != wanted) return false;
        rest_.remove_prefix(1);
        return true;
    }
    void expect(char wanted) {
        if (!accept(wanted)) fail(std::string("'") + wanted + "' was expected");
    }
    std::string string() {
        skip_space();
        const char quote = rest_.empty() ? '\0' : rest_.front();
        if (quote != '\'' && quote != '"') fail("a quoted word was expected");
        const std::size_t end = rest_.find(quote, 1);
        if (end == std::string_view::npos) fail("an unterminated string");
        std::string word(rest_.substr(1, end - 1));
        rest_.remove_prefix(end + 1);
        return word;
    }
    bool boolean() {
        skip_space();
        for (const std::string_view word : {"True", "False"}) {
            if (!rest_.starts_with(word)) continue;
            rest_.remove_prefix(word.size());
            return word == "True";
        }
        fail("True or False was expected");
    }
    std::uint64_t number() {
        skip_space();
        std::uint64_t value = 0;
        const auto result = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value);
        if (result.ec != std::errc()) fail("a dimension was expected");
        rest_.remove_prefix(static_cast<std::size_t>(result.ptr - rest_.data()));
        return value;
    }
    bool at_end() {
        skip_space();
        return rest_.empty();
    }
    [[noreturn]] void fail(const std::string& what) const {
        throw InputError(source_ + ": malformed .npy header (" + what + ")");
    }

  private:
    void skip_space() {
        while (!rest_.empty() && std::isspace(static_cast<unsigned char>(rest_.front())) != 0) rest_.remove_prefix(1);
    }
    std::string_view rest_;
    const std::string& source_;
};

std::vector<std::uint64_t> parse_shape(Literal& literal) {
    std::vector<std::uint64_t> shape;
    literal.expect('(');
    while (!literal.accept(')')) {
        shape.push_back(literal.number());
        if (shape.size() > 32) literal.fail("more than 32 dimensions");
        if (!literal.accept(',')) {
            literal.expect(')');
            break;
        }
    }
    return shape;
}

void parse_descr(const std::string& descr, NpyHeader& header, const std::string& source) {
    const bool plain =
        descr.size() == 3 && (descr[0] == '<' || descr[0] == '|') && (descr[1] == 'i' || descr[1] == 'u');
    const char size = plain ? descr[2] : '\0';
    if (!plain || (size != '2' && size != '4' && size != '8')) {
        throw InputError(source + ": dtype '" + descr +
                         "' is not a little-endian integer type of 2, 4 or 8 bytes, as token ids need");
    }
    header.kind = descr[1];
    header.item_bytes = static_cast<std::size_t>(size - '0');
}

void check_size(const NpyHeader& header, std::uint64_t file_bytes, const std::string& source) {
    std::uint64_t bytes = header.item_bytes;
    for (const std::uint64_t dimension : header.shape) {
        if (__builtin_mul_overflow(bytes, dimension, &bytes)) throw InputError(source + ": its shape overflows");
    }
    if (bytes != file_bytes - header.data_offset) {
        throw InputError(source + ": the shape needs " + std::to_string(bytes) + " bytes of data, the file holds " +
                         std::to_string(file_bytes - header.data_offset));
    }
}

}  // namespace

NpyHeader parse_npy_header(std::span<const std::byte> prefix, std::uint64_t file_bytes, const std::string& source) {
    const auto* const bytes = reinterpret_cast<const unsigned char*>(prefix.data());
    if (prefix.size() < 10 || std::memcmp(bytes, "\x93NUMPY", 6) != 0) {
        throw InputError(source + " does not begin as a .npy file does");
    }
    const unsigned major = bytes[6];
    if (major < 1 || major > 3) throw InputError(source + ": .npy version " + std::to_string(major) + " is not known");
    const std::size_t start = major == 1 ? 10 : 12;
    if (prefix.size() < start) throw InputError(source + ": malformed .npy header (the file ends inside it)");
    std::uint64_t length = bytes[8] | (static_cast<std::uint64_t>(bytes[9]) << 8);
    if (major > 1)
        length |= (static_cast<std::uint64_t>(bytes[10]) << 16) | (static_cast<std::uint64_t>(bytes[11]) << 24);
    if (length > prefix.size() - start) {
        throw InputError(source + ": malformed .npy header (its length " + std::to_string(length) +
                         " exceeds the file or 64 KiB)");
    }
    Literal literal({reinterpret_cast<const char*>(bytes + start), static_cast<std::size_t>(length)}, source);
    NpyHeader header;
    bool has_descr = false, has_order = false, has_shape = false;
    literal.expect('{');
    while (!literal.accept('}')) {
        const std::string key = literal.string();
        literal.expect(':');
        if (key == "descr" && !std::exchange(has_descr, true)) {
            parse_descr(literal.string(), header, source);
        } else if (key == "fortran_order" && !std::exchange(has_order, true)) {
            if (literal.boolean())
                throw InputError(source + ": is in Fortran order; save it with numpy.ascontiguousarray");
        } else if (key == "shape" && !std::exchange(has_shape, true)) {
            header.shape = parse_shape(literal);
        } else {
            literal.fail("unexpected key '" + key + "'");
        }
        if (!literal.accept(',')) {
            literal.expect('}');
            break;
        }
    }
    if (!literal.at_end()) literal.fail("text after the dictionary");
    if (!has_descr || !has_order || !has_shape) literal.fail("descr, fortran_order or shape is missing");
    header.data_offset = start + length;
    check_size(header, file_bytes, source);
    return header;
}

}  // namespace espalier
