#include "io/safetensors.h"

#include "src/base/error.h"
#include "src/base/json.h"

#include <algorithm>
#include <array>
#include <utility>

namespace espalier {

namespace {

constexpr std::array<std::pair<std::string_view, unsigned>, 22> known_dtypes = {
    {{"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
     {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
     {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
     {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64}}};

bool multiply_overflows(std::uint64_t a, std::uint64_t b, std::uint64_t& product) {
    return __builtin_mul_overflow(a, b, &product);
}

std::uint64_t unsigned_number(const Json& value, const std::string& what) {
    if (!value.is_number_unsigned()) throw InputError(what + " is not a non-negative integer");
    return value.get<std::uint64_t>();
}

SafetensorsEntry parse_entry(const Json& entry, const std::string& where, std::vector<std::string>& warnings) {
    if (!entry.is_object()) throw InputError(where + " is not an object with dtype, shape and data_offsets");
    for (const char* const field : {"dtype", "shape", "data_offsets"}) {
        if (!entry.contains(field)) throw InputError(where + " has no field '" + field + "'");
    }
    for (const auto& [field, value] : entry.items()) {
        if (field != "dtype" && field != "shape" && field != "data_offsets") {
            warnings.push_back(where + " has an unknown field '" + field + "', which is ignored");
        }
    }
    SafetensorsEntry parsed;
    if (!entry["dtype"].is_string()) throw InputError(where + ": dtype is not a string");
    parsed.dtype = entry["dtype"].get<std::string>();
    const unsigned bits = safetensors_bits(parsed.dtype);
    if (bits == 0) throw InputError(where + ": dtype '" + parsed.dtype + "' is not known to the format");
    if (!entry["shape"].is_array()) throw InputError(where + ": shape is not an array");
    std::uint64_t elements = 1;
    for (const Json& dimension : entry["shape"]) {
        parsed.shape.push_back(unsigned_number(dimension, where + ": a dimension of shape"));
        if (multiply_overflows(elements, parsed.shape.back(), elements)) {
            throw InputError(where + ": the product of its shape overflows");
        }
    }
    std::uint64_t size_in_bits = 0;
    if (multiply_overflows(elements, bits, size_in_bits)) throw InputError(where + ": its size overflows");
    if (size_in_bits % 8 != 0) throw InputError(where + ": its size is not a whole number of bytes");
    const Json& offsets = entry["data_offsets"];
    if (!offsets.is_array() || offsets.size() != 2) throw InputError(where + ": data_offsets is not [begin, end]");
    parsed.begin = unsigned_number(offsets[0], where + ": data_offsets[0]");
    const std::uint64_t end = unsigned_number(offsets[1], where + ": data_offsets[1]");
    if (end < parsed.begin) throw InputError(where + ": data_offsets end before they begin");
    parsed.bytes = end - parsed.begin;
    if (parsed.bytes != size_in_bits / 8) {
        throw InputError(where + ": data_offsets span " + std::to_string(parsed.bytes) +
                         " bytes, shape and dtype need " + std::to_string(size_in_bits / 8));
    }
    return parsed;
}

std::map<std::string, std::string> parse_metadata(const Json& metadata, const std::string& source) {
    if (!metadata.is_object()) throw InputError(source + ": __metadata__ is not an object");
    std::map<std::string, std::string> parsed;
    for (const auto& [key, value] : metadata.items()) {
        if (!value.is_string()) {
            throw InputError(source + ": __metadata__ field '" + key + "' is not a string");
        }
        parsed[key] = value.get<std::string>();
    }
    return parsed;
}

/// No holes, no overlaps, nothing left over: the tensors tile the data from its first byte to its last.
void check_tiling(const SafetensorsHeader& header, std::uint64_t data_bytes, const std::string& source) {
    std::vector<const std::pair<const std::string, SafetensorsEntry>*> order;
    for (const auto& tensor : header.tensors) order.push_back(&tensor);
    std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
        return std::pair(a->second.begin, a->second.bytes) < std::pair(b->second.begin, b->second.bytes);
    });
    std::uint64_t expected = 0;
    for (const auto* tensor : order) {
        const SafetensorsEntry& entry = tensor->second;
        if (entry.begin != expected) {
            throw InputError(source + ": tensor '" + tensor->first + "' begins at byte " + std::to_string(entry.begin) +
                             " of the data, " +
                             (entry.begin > expected ? "leaving a hole after " : "overlapping the end ") +
                             std::to_string(expected));
        }
        expected += entry.bytes;
        if (expected > data_bytes) {
            throw InputError(source + ": tensor '" + tensor->first + "' ends at byte " + std::to_string(expected) +
                             " of the data, but the file holds only " + std::to_string(data_bytes) +
                             " (truncated download?)");
        }
    }
    if (expected != data_bytes) {
        throw InputError(source + ": " + std::to_string(data_bytes - expected) + " bytes after the last tensor");
    }
}

}  // namespace

unsigned safetensors_bits(std::string_view dtype) {
    for (const auto& [name, bits] : known_dtypes) {
        if (name == dtype) return bits;
    }
    return 0;
}

std::uint64_t safetensors_header_bytes(const unsigned char (&prefix)[8], std::uint64_t file_bytes,
                                       const std::string& source) {
    std::uint64_t length = 0;
    for (int i = 7; i >= 0; --i) length = (length << 8) | prefix[i];
    if (length > safetensors_header_limit) {
        throw InputError(source + ": header length " + std::to_string(length) + " exceeds the format's limit of " +
                         std::to_string(safetensors_header_limit) + " bytes (not a safetensors file?)");
    }
    if (length > file_bytes - 8) {
        throw InputError(source + ": header of " + std::to_string(length) + " bytes in a file of " +
                         std::to_string(file_bytes) + " (truncated download?)");
    }
    return length;
}

SafetensorsHeader parse_safetensors_header(std::string_view text, std::uint64_t file_bytes, const std::string& source) {
    const Json json = parse_strict_json(text, source + " header");
    if (!json.is_object()) throw InputError(source + ": the header is not a JSON object");
    SafetensorsHeader header;
    for (const auto& [name, value] : json.items()) {
        if (name == "__metadata__") {
            header.metadata = parse_metadata(value, source);
            continue;
        }
        header.tensors[name] = parse_entry(value, source + ": tensor '" + name + "'", header.warnings);
    }
    const std::uint64_t data_start = 8 + text.size();
    check_tiling(header, file_bytes - data_start, source);
    for (auto& tensor : header.tensors) tensor.second.begin += data_start;
    return header;
}

std::string make_safetensors_header(const std::vector<std::pair<std::string, SafetensorsEntry>>& tensors,
                                    const std::map<std::string, std::string>& metadata) {
    // In the order of the data, which the keys of our objects are not in.
    std::string text = metadata.empty() ? "" : "\"__metadata__\":" + Json(metadata).dump();
    std::uint64_t offset = 0;
    for (const auto& [name, entry] : tensors) {
        text += (text.empty() ? "" : ",") + Json(name).dump() + ":{\"dtype\":" + Json(entry.dtype).dump() +
                ",\"shape\":" + Json(entry.shape).dump() +
                ",\"data_offsets\":" + Json{offset, offset + entry.bytes}.dump() + "}";
        offset += entry.bytes;
    }
    text = "{" + text + "}";
    text.append((8 - text.size() % 8) % 8, ' ');
    std::string prefix(8, '\0');
    for (std::size_t i = 0; i < 8; ++i) prefix[i] = static_cast<char>((text.size() >> (8 * i)) & 0xff);
    return prefix + text;
}

}  // namespace espalier
