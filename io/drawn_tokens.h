#pragma once
/// Tokens that a run has drawn from its model, in the place of a token file: "self:256x128" (samples x length). They
/// are drawn once and kept in the run folder.

#include "io/run_folder.h"
#include "io/token_file.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>

namespace espalier {

/// Whether an argument in the place of a token file asks for them.
inline bool names_drawn_tokens(const std::string& name) {
    return name.starts_with("self:");
}

/// How tokens are drawn, and from what: names and values, which go into the file.
using DrawingRecipe = std::map<std::string, std::string>;

/// A table of the shape that `name` asks for, with no tokens in it yet: all ids are 0. Throws InputError when it is not
/// "self:SAMPLESxTOKENS".
TokenTable shape_of_drawn_tokens(const std::string& name);

/// The table of drawn ids, whose sha256 is of recipe and ids.
TokenTable table_of_drawn_tokens(std::size_t rows, std::size_t columns, std::span<const std::int32_t> ids,
                                 const DrawingRecipe& recipe);

/// The run's calibration.h5 with these tokens, written, complete or not at all, unless it holds them already.
FileRecord keep_drawn_tokens(const RunFolder& run, const TokenTable& table, const DrawingRecipe& recipe);

/// What the folder keeps, if it was drawn by that recipe; nothing otherwise. Throws InputError when the file is
/// damaged.
std::optional<TokenTable> kept_tokens(const std::filesystem::path& folder, const DrawingRecipe& recipe,
                                      std::size_t vocabulary);
/// What the folder of a run keeps, however it was drawn. Throws InputError when it keeps none.
TokenTable kept_tokens(const std::filesystem::path& folder, std::size_t vocabulary);

}  // namespace espalier
