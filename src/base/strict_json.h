#pragma once
/// JSON from files that we did not write: no duplicate keys, bounded depth and size.

#include <nlohmann/json.hpp>

#include <string>
#include <string_view>

// Compiled once, in strict_json.cpp, instead of in every file that sees it.
extern template class nlohmann::basic_json<>;

namespace espalier {

using Json = nlohmann::json;

/// Parses one JSON value and nothing after it but white space. Throws InputError that begins with `source` (a file
/// name) and says where the text breaks, which key is twice, or that it nests deeper than 64 levels.
Json parse_strict_json(std::string_view text, const std::string& source);

}  // namespace espalier
