#pragma once
/// What it takes to measure likelihoods, foreseen by letting the program's own code do so on modelled devices.

#include "src/evaluate/packed_sequences.h"
#include "src/plan/memory_plan.h"
#include "src/weights/model_source.h"

#include <cstddef>
#include <span>
#include <string>

namespace espalier {

/// References outlive the plan.
struct PlannedEvaluation {
    const ModelSource& source;  ///< only its shapes are looked at
    std::span<const PackedSequences> passes;
    std::size_t ranks = 1;
    std::string advice = {};  ///< where a device's memory is not enough
};

struct EvaluationPlan {
    std::size_t ranks = 1;
    double run_seconds = 0;      ///< of the busiest rank, or of the files where they are slower
    double file_seconds = 0;     ///< to read the model once, by all ranks
    double flops = 0;            ///< of the busiest rank
    double bytes_read = 0;       ///< by all ranks together
    std::size_t host_bytes = 0;  ///< of its process
    MemoryPlan memory;           ///< of the busiest rank's device
};

/// One rank's part of it on a modelled device and network: phases embed, blocks and head.
Rehearsal rehearse_evaluation(const PlannedEvaluation& evaluation, std::size_t rank, const DeviceModel& model,
                              StoragePlace hidden_states);

/// Of one rank's device. Throws ResourceError when it is not enough.
MemoryPlan plan_evaluation_memory(const PlannedEvaluation& evaluation, std::size_t rank, const DeviceModel& device);

/// Of the last rank, which has the most passes.
EvaluationPlan plan_evaluation(const PlannedEvaluation& evaluation, const DeviceModel& device);

/// `what` is measured, in words.
std::string describe(const EvaluationPlan& plan, const std::string& what, const DeviceModel& device);
Json to_json(const EvaluationPlan& plan);

}  // namespace espalier
