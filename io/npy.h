#pragma once
/// The header of NumPy's .npy files, versions 1 to 3, for integer arrays.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace espalier {

struct NpyHeader {
    char kind = 'i';             ///< 'i' signed, 'u' unsigned
    std::size_t item_bytes = 0;  ///< 2, 4 or 8
    std::vector<std::uint64_t> shape;
    std::uint64_t data_offset = 0;
};

/// Parses the beginning of a file of `file_bytes` bytes (`prefix` holds its first bytes, all of them when fewer than 64
/// KiB). Throws InputError beginning with `source`: wrong magic or version, malformed header, object or floating-point
/// dtype, big-endian, Fortran order, a shape that does not fit the file.
NpyHeader parse_npy_header(std::span<const std::byte> prefix, std::uint64_t file_bytes, const std::string& source);

}  // namespace espalier
