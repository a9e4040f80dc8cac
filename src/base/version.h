#pragma once
/// The version of the program.

#include <string_view>

namespace espalier {

/// Of the program and its files. docs/formats.md says what a change of each part means.
inline constexpr std::string_view program_version = "0.1.0";

}  // namespace espalier
