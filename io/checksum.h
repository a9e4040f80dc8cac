#pragma once
/// XXH3-128 for data we wrote (fast, finds damage) and SHA-256 for identity of inputs.

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace espalier {

/// 32 hexadecimal digits.
std::string xxh3_128(std::span<const std::byte> data);
/// Of a whole file, read in pieces.
std::string xxh3_128_of_file(const std::filesystem::path& path);
/// 64 hexadecimal digits.
std::string sha256(std::string_view text);
std::string sha256_of_file(const std::filesystem::path& path);

}  // namespace espalier
