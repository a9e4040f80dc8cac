#pragma once
/// What a run is known by, and what tells two of them apart.

#include "src/base/json.h"

#include <string>

namespace espalier {

/// "2026-11-24T10:57:20Z-0f3a92bc": never the same twice.
std::string new_run_id();

/// "method: the run has wanda, this command has rgs" for every value that differs; empty when none does.
std::string differences(const Json& of_run, const Json& of_command);

}  // namespace espalier
