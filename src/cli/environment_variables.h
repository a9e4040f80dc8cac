#pragma once
/// The variables ESPALIER_... of the environment: every option is one, and a few are read elsewhere.

#include "src/cli/option_set.h"

#include <string>
#include <vector>

namespace espalier {

/// "ro-samples" -> "ESPALIER_RO_SAMPLES".
std::string variable_of_option(const std::string& option);

/// Names of this process's environment that begin with ESPALIER_.
std::vector<std::string> own_variables();

/// A sentence for each of `variables` that nothing reads, neither as one of `options` (of all commands) nor otherwise;
/// it names the variable that comes nearest, when one comes near.
std::vector<std::string> unread_variables(const std::vector<std::string>& variables,
                                          const std::vector<OptionSpec>& options);

}  // namespace espalier
