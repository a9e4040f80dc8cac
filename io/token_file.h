#pragma once
/// Token ids for calibration and evaluation: HDF5 dataset `input_ids` or a .npy file, [N, T] or one-dimensional.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace espalier {

/// `rows` sequences of `columns` tokens each, row-major; a one-dimensional file is one row.
struct TokenTable {
    std::size_t rows = 0;
    std::size_t columns = 0;
    std::vector<std::int32_t> ids;
    std::string sha256;  ///< of the file
};

/// What token ids are wanted for; jobs/prepare_tokens.py makes a file for each.
enum class TokenPurpose { calibration, evaluation };

/// Reads and checks the file (by its first bytes, not its name; "synthetic:128x2048" makes them up). Throws InputError
/// naming the file: wrong format, text (with the command that makes tokens of it), empty, a token id that is negative
/// or not below `vocabulary` (with its place).
TokenTable read_token_file(const std::filesystem::path& path, std::size_t vocabulary, TokenPurpose purpose);

/// Writes an HDF5 file of `rows` sequences of `columns` tokens, int32 [rows, columns] in /input_ids, whose attributes
/// say where they come from; complete or not at all. Throws ResourceError.
void write_token_file(const std::filesystem::path& path, std::size_t rows, std::size_t columns,
                      std::span<const std::int32_t> ids, const std::map<std::string, std::string>& attributes);

}  // namespace espalier
