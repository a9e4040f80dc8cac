#pragma once
/// safetensors headers by a strict parser: everything is checked against the file's length before any tensor is read.
/// Format: 8 bytes little-endian header length N, N bytes of JSON, data. Rules: docs/formats.md.

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace espalier {

/// Where one tensor lies. `dtype` is the format's own word ("BF16"), since a file may hold types that we do not compute
/// on.
struct SafetensorsEntry {
    std::string dtype;
    std::vector<std::uint64_t> shape;
    std::uint64_t begin = 0;  ///< byte offset in the file
    std::uint64_t bytes = 0;
};

struct SafetensorsHeader {
    std::map<std::string, SafetensorsEntry> tensors;
    std::map<std::string, std::string> metadata;
    std::vector<std::string> warnings;  ///< tolerated deviations, one sentence each
};

/// Largest header that the format allows.
inline constexpr std::uint64_t safetensors_header_limit = 100'000'000;

/// Checks the 8-byte length against the file and returns N. Throws InputError beginning with `source`.
std::uint64_t safetensors_header_bytes(const unsigned char (&prefix)[8], std::uint64_t file_bytes,
                                       const std::string& source);

/// Parses the JSON of a header of `text.size()` bytes in a file of `file_bytes` bytes. Throws InputError beginning with
/// `source` and naming the tensor: wrong JSON, unknown dtype, sizes that do not match, holes, overlaps, data beyond the
/// end, data left over. Memory is bounded by a small multiple of the header's own size.
SafetensorsHeader parse_safetensors_header(std::string_view text, std::uint64_t file_bytes, const std::string& source);

/// Bits of an element of a safetensors dtype; 0 for a word that the format does not know.
unsigned safetensors_bits(std::string_view dtype);

/// A header in the strict form for tensors laid out one after another in the given order, padded with spaces to a
/// multiple of 8, with the 8-byte length in front.
std::string make_safetensors_header(const std::vector<std::pair<std::string, SafetensorsEntry>>& tensors,
                                    const std::map<std::string, std::string>& metadata);

}  // namespace espalier
