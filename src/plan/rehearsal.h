#pragma once
/// A block pruned, or passed through densely, by the program's own code, by one rank of many, for its counts and its
/// time: on a modelled device and network for `plan`, on the real device and a modelled network for a dry run.

#include "kernels/device.h"
#include "mpi/topology.h"
#include "src/blocks/phase_clock.h"
#include "src/method/prune_options.h"
#include "src/model/block_layout.h"
#include "src/model/model_config.h"
#include "src/plan/device_model.h"
#include "src/plan/dry_run_communicator.h"
#include "src/plan/modelled_device.h"
#include "src/samples/sample_store.h"
#include "src/weights/model_source.h"

#include <map>
#include <span>
#include <string>
#include <vector>

namespace espalier {

/// The shapes of a model. References outlive whatever is planned for it.
struct PlannedModel {
    const ModelConfig& config;
    const BlockLayout& layout;
    const BlockStorage& storage;
};

/// What is rehearsed: one rank of the whole run. References outlive the rehearsal.
struct RehearsedRun {
    const PruneOptions& options;
    PlannedModel model;
    const Topology& topology;
    int rank = 0;                ///< of the world, the one that is played
    std::size_t block = 0;       ///< one of its group's: decides who owns it and which samples are drawn
    bool searches_rate = false;  ///< the learning rate in this block; else a rate is given, as in all but one
};

struct Rehearsal {
    std::map<std::string, PhaseCost> phases;     ///< of the played rank
    double flops = 0;                            ///< of the played rank
    std::map<std::string, DeviceSeconds> spent;  ///< by phase; on modelled devices only. The rest is waiting.
    std::vector<MemoryItem> memory;              ///< of the device, when it is most
    std::size_t host_bytes = 0;                  ///< page-locked, at most; on modelled devices only

    double seconds() const;
    std::size_t peak_bytes() const { return total_bytes(memory); }
    CommunicationLedger communication() const;
};

/// Real data for a rehearsal on a real device: the first block, and token ids, which repeat when the run has more
/// samples.
struct RehearsalData {
    const ModelSource& source;
    std::span<const std::int32_t> ids;
};

/// The block pruned, on a modelled device and network. The device gives whatever memory is asked for: is it too much?
Rehearsal rehearse(const RehearsedRun& run, const DeviceModel& model, StoragePlace hidden_states);
/// The same on `device`, which must play the block's owner. Throws ResourceError when its memory is not enough.
Rehearsal rehearse(const RehearsedRun& run, const NetworkModel& network, Device& device, const RehearsalData& data,
                   StoragePlace hidden_states);

/// One dense block on its way to later groups (phases `load` and `pass`), and then the samples handed to this rank's
/// own group (`hand_over`).
Rehearsal rehearse_dense_front(const RehearsedRun& run, const DeviceModel& model, StoragePlace hidden_states);
Rehearsal rehearse_dense_front(const RehearsedRun& run, const NetworkModel& network, Device& device,
                               const RehearsalData& data, StoragePlace hidden_states);

}  // namespace espalier
