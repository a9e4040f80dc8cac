#pragma once
/// `prune --dry-run-ranks P`.

#include "src/cli/commands.h"
#include "src/cli/device_options.h"
#include "src/method/prune_options.h"
#include "src/report/progress.h"
#include "src/weights/model_source.h"

#include <cstdint>
#include <span>
#include <string>

namespace espalier {

struct DryRunInputs {
    const ModelSource& source;
    const PruneOptions& options;
    std::span<const std::int32_t> ids;
    const std::string& command_line;
};

/// Computes one rank's share of one block for 1, 2, 4 … ranks on this process's device, prints how the run scales, and
/// writes --dry-run-report. Throws InputError, also when the process is not alone.
void dry_run(const Session& session, const OptionSet& set, const DryRunInputs& inputs, ChosenDevice& chosen,
             Progress& progress);

}  // namespace espalier
