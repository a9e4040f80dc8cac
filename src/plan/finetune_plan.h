#pragma once
/// What a run of fine-tuning takes, foreseen by letting its own code take a step on modelled devices.

#include "src/finetune/training_context.h"
#include "src/plan/memory_plan.h"
#include "src/weights/model_source.h"

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace espalier {

/// References outlive the plan.
struct PlannedFinetuning {
    const FinetuneOptions& options;
    const ModelSource& student;  ///< only its shapes are looked at
    const ModelSource* teacher;  ///< null when the loss does not ask it
    std::size_t ranks = 1;
    bool teacher_shares_head = false;  ///< have_same_outer
};

/// Where things lie, in the order in which places are tried: what is faster first.
struct FinetunePlaces {
    WeightPlace weights = WeightPlace::resident;
    StoragePlace hidden_states = StoragePlace::device;
    StatePlace states = StatePlace::device;
};

/// Places that were asked for; those that were not are chosen.
struct AskedPlaces {
    std::optional<WeightPlace> weights;
    std::optional<StatePlace> states;
};

struct FinetuneMemory {
    FinetunePlaces places;
    MemoryPlan memory;
};

struct FinetunePlan {
    std::size_t ranks = 1, trained_values = 0;
    FinetuneMemory memory;       ///< of the rank that needs the most, of all or, when there are many, of three
    double step_seconds = 0;     ///< one step
    double look_seconds = 0;     ///< one look at the held-out samples
    double teacher_seconds = 0;  ///< its hidden states of all samples
    double load_seconds = 0;     ///< from the files, by all ranks
    double run_seconds = 0;
    double flops = 0;              ///< of a step, of this rank
    std::size_t host_bytes = 0;    ///< of its process
    std::uint64_t file_bytes = 0;  ///< of what all ranks keep in files, StatePlace::file
};

/// One rank's teacher's states and one step, on a modelled device and network: phases teacher, start, look and step.
Rehearsal rehearse_finetuning(const PlannedFinetuning& run, std::size_t rank, const DeviceModel& model,
                              const FinetunePlaces& places);

/// device, host or file.
std::string_view name_of(StatePlace place);
/// "host memory", "a file in --output".
std::string_view describe(StatePlace place);

/// Of what all ranks together keep away from their devices of trained matrices.
std::uint64_t bytes_away(const PlannedFinetuning& run);

/// What a CPU takes, whose tensors have all of the host's memory: as little of it as may be.
FinetunePlaces places_on_cpu(const FinetuneOptions& options, const AskedPlaces& asked);

/// Of the one of these ranks that needs the most: the first places that suffice, among those that are asked for. Throws
/// ResourceError when nothing does.
FinetuneMemory plan_finetune_memory(const PlannedFinetuning& run, std::span<const std::size_t> ranks,
                                    const DeviceModel& device, const AskedPlaces& asked = {});

FinetunePlan plan_finetuning(const PlannedFinetuning& run, const DeviceModel& device, const AskedPlaces& asked = {});
std::string describe(const FinetunePlan& plan, const FinetuneOptions& options, const DeviceModel& device);
Json to_json(const FinetunePlan& plan);

}  // namespace espalier
