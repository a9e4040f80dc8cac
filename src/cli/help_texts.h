#pragma once
/// The parts of the help that are not a list of options. docs/reference.md is made from the help
/// (docs/make_reference.py), and tests/commands runs its examples.

#include <string>

namespace espalier {

/// What a command is for, in some sentences, and example command lines; ends with an empty line.
std::string explanation_of(const std::string& command);

/// Exit statuses and environment variables of all commands.
std::string general_help();

}  // namespace espalier
