#pragma once
/// What a run is known by, and what tells two of them apart.

#include "src/base/json.h"

#include <cstddef>
#include <filesystem>
#include <string>

namespace espalier {

/// "2026-11-24T10:57:20Z-0f3a92bc": never the same twice.
std::string new_run_id();

/// What a session is and runs on; it goes into manifest and metrics but does not decide the result.
struct SessionFacts {
    std::string command_line;
    Json options_with_origins;
    std::string device;
    std::size_t ranks = 1, threads_per_rank = 1;

    /// The manifest's `provenance`: these facts, this host and the time.
    Json provenance() const;
};

/// "method: the run has wanda, this command has rgs" for every value that differs; empty when none does.
std::string differences(const Json& of_run, const Json& of_command);

/// Throws InputError with the differences when the run that `output` holds and this command differ.
void refuse_differences(const std::filesystem::path& output, const Json& of_run, const Json& of_command);

}  // namespace espalier
