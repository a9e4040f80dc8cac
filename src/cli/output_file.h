#pragma once
/// Files that a sub-command writes at its end.

#include <filesystem>
#include <string>

namespace espalier {

/// Before the minutes that its content takes: throws InputError when `file`, the value of --`option`, cannot be
/// written.
void refuse_unwritable(const std::string& option, const std::filesystem::path& file);

}  // namespace espalier
