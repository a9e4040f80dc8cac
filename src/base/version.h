#pragma once
/// The version of the program.

#include <string_view>

namespace espalier {

/// Part of the identity of a run: another version does not resume it.
inline constexpr std::string_view program_version = "0.1.0";

}  // namespace espalier
