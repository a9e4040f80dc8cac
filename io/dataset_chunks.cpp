#include "io/dataset_chunks.h"

#include "io/fletcher32.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace espalier {

void DatasetChunks::assemble(std::size_t index, std::span<std::byte> stored) const {
    const std::size_t begin = index * chunk_bytes;
    const auto part = data.subspan(begin, std::min(chunk_bytes, data.size() - begin));
    std::copy(part.begin(), part.end(), stored.begin());
    std::fill(stored.begin() + static_cast<std::ptrdiff_t>(part.size()), stored.end(), std::byte{0});
    const std::uint32_t checksum = fletcher32(stored.first(chunk_bytes));  // little-endian in the file, as here
    std::memcpy(stored.data() + chunk_bytes, &checksum, sizeof checksum);
}

}  // namespace espalier
