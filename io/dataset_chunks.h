#pragma once
/// The bytes of a dataset as the chunks of an HDF5 file, which can so be made and compared outside of the library.

#include <cstddef>
#include <span>

namespace espalier {

/// Each chunk is followed by its checksum (fletcher32); the last is filled up with zeros.
struct DatasetChunks {
    std::span<const std::byte> data;
    std::size_t chunk_bytes;

    std::size_t count() const { return (data.size() + chunk_bytes - 1) / chunk_bytes; }
    std::size_t stored_bytes() const { return chunk_bytes + 4; }
    /// Chunk `index` as the file holds it, in stored_bytes() bytes.
    void assemble(std::size_t index, std::span<std::byte> stored) const;
};

}  // namespace espalier
