#pragma once
/// The options that describe the network of a plan or a dry run.

#include "src/cli/option_set.h"
#include "src/plan/network_model.h"

#include <vector>

namespace espalier {

/// --gpus-per-node and --network-bandwidth.
std::vector<OptionSpec> network_option_specs();
/// Changes what is given. Throws InputError.
void apply_network_options(const OptionSet& options, NetworkModel& network);

}  // namespace espalier
