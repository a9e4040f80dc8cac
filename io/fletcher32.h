#pragma once
/// The checksum of HDF5's fletcher32 filter, computed outside of the library, which would do it one chunk after the
/// other under its lock.

#include <cstddef>
#include <cstdint>
#include <span>

namespace espalier {

/// Fletcher's checksum (1982) of big-endian 16-bit words modulo 65535, zero written as 65535 unless all words are zero;
/// the second sum in the upper half. An odd last byte counts as the upper half of a word.
std::uint32_t fletcher32(std::span<const std::byte> data);

}  // namespace espalier
