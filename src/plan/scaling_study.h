#pragma once
/// How the real code scales, on one device: one rank of each size of run computes its own share of one block, with the
/// time that a network model gives to its communication. Beside it what `plan` says without computing anything.

#include "src/plan/run_plan.h"

#include <functional>
#include <span>
#include <string>
#include <vector>

namespace espalier {

struct ScalingPoint {
    std::size_t ranks = 1;
    RunPlan measured;  ///< from a block computed on this device
    RunPlan planned;   ///< from a modelled one
};

/// `strong`: the same work on more ranks. `weak`: the work of one rank times their number, that is samples, shards,
/// drawn samples and mini-batches, beginning with the given ones.
struct ScalingStudy {
    std::vector<ScalingPoint> strong, weak;
};

struct DryRun {
    const ModelSource& source;
    const PruneOptions& options;
    std::span<const std::int32_t> ids;  ///< of all samples
    std::size_t most_ranks = 1;         ///< 1, 2, 4 … and this number
    const DeviceModel& model;           ///< rates of this device, and the network
};

/// `announce` hears what is computed next.
ScalingStudy study_scaling(const DryRun& run, Device& device, const std::function<void(const std::string&)>& announce);

std::string describe(const ScalingStudy& study);
Json to_json(const ScalingStudy& study);

}  // namespace espalier
