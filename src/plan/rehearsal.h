#pragma once
/// One block pruned by the program's own code, by one rank of many, for its counts and its time: on a modelled device
/// and network for `plan`, on the real device and a modelled network for a dry run.

#include "kernels/device.h"
#include "mpi/dry_run_communicator.h"
#include "src/model/block_layout.h"
#include "src/model/model_config.h"
#include "src/plan/device_model.h"
#include "src/plan/modelled_device.h"
#include "src/prune/memory_plan.h"
#include "src/prune/phase_clock.h"
#include "src/prune/prune_options.h"
#include "src/weights/model_source.h"

#include <map>
#include <span>
#include <string>

namespace espalier {

/// What is rehearsed. References outlive the rehearsal.
struct RehearsedRun {
    const PruneOptions& options;
    const ModelConfig& config;
    const BlockLayout& layout;
    const BlockStorage& storage;
    std::size_t ranks = 1;  ///< of the block's group
    std::size_t rank = 0;   ///< the one that is played
    std::size_t owner = 0;  ///< of the block
};

struct Rehearsal {
    std::map<std::string, PhaseCost> phases;     ///< of the played rank
    double flops = 0;                            ///< of the played rank
    std::map<std::string, DeviceSeconds> spent;  ///< by phase; on modelled devices only. The rest is waiting.
    std::size_t peak_bytes = 0;
    MemoryPlan memory;

    double seconds() const;
    CommunicationLedger communication() const;
};

/// On a modelled device and network. Throws ResourceError when the memory of the rank is not enough.
Rehearsal rehearse(const RehearsedRun& run, const DeviceModel& model);

/// On `device`: with the first block of `source` and the embeddings of `ids`.
Rehearsal rehearse(const RehearsedRun& run, const NetworkModel& network, Device& device, const ModelSource& source,
                   std::span<const std::int32_t> ids);

}  // namespace espalier
