#pragma once
/// The devices that a plan is for.

#include "src/cli/option_set.h"
#include "src/plan/device_model.h"

#include <vector>

namespace espalier {

/// --ranks, --gpu, --rates, --gpu-memory, --threads, and those of the network.
std::vector<OptionSpec> planned_device_option_specs();
/// Throws InputError.
DeviceModel choose_device_model(const OptionSet& set);

}  // namespace espalier
