// The input is a whole safetensors file. An accepted header tiles the file's data exactly, and written again in the
// strict form it reads as the same tensors.
#include "io/safetensors.h"
#include "tests/fuzz/fuzz_target.h"

#include <algorithm>
#include <cstring>

namespace {

using namespace espalier;

void check_tiles(const SafetensorsHeader& header, std::uint64_t data_start, std::uint64_t file_bytes) {
    std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
    for (const auto& [name, entry] : header.tensors) {
        demand(safetensors_bits(entry.dtype) != 0, "a known dtype");
        ranges.emplace_back(entry.begin, entry.bytes);
    }
    std::sort(ranges.begin(), ranges.end());
    std::uint64_t position = data_start;
    for (const auto& [begin, bytes] : ranges) {
        demand(begin == position, "no hole and no overlap");
        demand(bytes <= file_bytes - position, "data inside the file");
        position += bytes;
    }
    demand(position == file_bytes, "nothing after the last tensor");
}

void check_rewritten(const SafetensorsHeader& header) {
    std::vector<std::pair<std::string, SafetensorsEntry>> tensors(header.tensors.begin(), header.tensors.end());
    const std::string text = make_safetensors_header(tensors, header.metadata);
    std::uint64_t file_bytes = text.size();
    for (const auto& [name, entry] : tensors) file_bytes += entry.bytes;
    unsigned char prefix[8];
    std::memcpy(prefix, text.data(), 8);
    demand(safetensors_header_bytes(prefix, file_bytes, "again") == text.size() - 8, "the written length");
    const SafetensorsHeader again = parse_safetensors_header(std::string_view(text).substr(8), file_bytes, "again");
    demand(again.tensors.size() == header.tensors.size(), "all tensors again");
    demand(again.metadata == header.metadata, "the metadata again");
    for (const auto& [name, entry] : header.tensors) {
        const auto found = again.tensors.find(name);
        demand(found != again.tensors.end(), "the same names");
        demand(found->second.dtype == entry.dtype && found->second.shape == entry.shape &&
                   found->second.bytes == entry.bytes,
               "the same types and shapes");
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 8) return 0;  // refused by the caller
    unsigned char prefix[8];
    std::memcpy(prefix, data, 8);
    SafetensorsHeader header;
    std::uint64_t length = 0;
    bool accepted = false;
    only_input_errors([&] {
        length = safetensors_header_bytes(prefix, size, "fuzz");
        header = parse_safetensors_header(as_text(data + 8, static_cast<std::size_t>(length)), size, "fuzz");
        accepted = true;
    });
    if (!accepted) return 0;
    check_tiles(header, 8 + length, size);
    check_rewritten(header);
    return 0;
}
