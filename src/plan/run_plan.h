#pragma once
/// A whole run foreseen: seconds, memory, bytes, for given ranks or for the best way to use them. Built on rehearsals
/// of one block, since all blocks of a model have one shape.

#include "src/plan/memory_plan.h"
#include "src/plan/rehearsal.h"

#include <cstddef>
#include <optional>

namespace espalier {

/// Time and memory. Where groups differ, of the slowest; in a group, of its busiest rank, for which the others wait.
struct RunPlan {
    std::size_t ranks = 1;
    std::size_t block_groups = 1, shards = 1, ro_batch = 1;
    std::size_t ranks_of_group = 1, ranks_without_samples = 0;  ///< the latter also of that group
    Rehearsal block;                                            ///< of the block's owner
    Rehearsal dense;                                            ///< of a dense block; empty when there is one group
    double block_seconds = 0;    ///< the rehearsed ones, or its share of the file system's when that is longer
    double blocks_in_a_row = 0;  ///< blocks that one rank works on one after the other
    double dense_seconds = 0;    ///< all ranks together bring the samples to the later groups
    double file_seconds = 0;     ///< the first block is read, the last written, with nothing beside it
    double run_seconds = 0;      ///< all of it
    MemoryPlan memory;           ///< of the device of the rank that needs the most
    std::size_t host_bytes = 0;  ///< of a rank's process: blocks being read and written, hidden states when they lie
                                 ///< there, libraries
    bool bound_by_files = false;

    double device_seconds() const { return run_seconds * static_cast<double>(ranks); }
    double device_hours() const { return device_seconds() / 3600; }
};

/// Of the whole run and all ranks.
struct RunTotals {
    double flops = 0;
    double bytes_read = 0, bytes_written = 0;  ///< from and to files
    double bytes_communicated = 0;             ///< sent; other blocks draw other samples, of which more or fewer travel
};

/// The run as `options` say, on `ranks` ranks. Throws InputError for groups or shards that do not fit, ResourceError
/// when a rank's memory is not enough.
RunPlan plan_run(const PlannedModel& model, const PruneOptions& options, std::size_t ranks, const DeviceModel& device);
/// Rehearses every rank of a group: of the same run as plan_run.
RunTotals count_totals(const PlannedModel& model, const PruneOptions& options, std::size_t ranks,
                       const DeviceModel& device);

/// plan_run with the slowest group's block, and a dense block when there are groups, computed on `device`, of which
/// `rates` gives the network and the files.
RunPlan plan_on_device(const PlannedModel& model, const PruneOptions& options, std::size_t ranks,
                       const DeviceModel& rates, Device& device, const RehearsalData& data);

/// Which of block groups, shards and mini-batches may be chosen; given values are kept.
struct PlanChoice {
    std::optional<std::size_t> block_groups, shards, ro_batch;
};

/// The fastest plan on `ranks` ranks; none when no choice fits into memory.
std::optional<RunPlan> best_plan(const PlannedModel& model, const PruneOptions& options, const PlanChoice& choice,
                                 std::size_t ranks, const DeviceModel& device);

}  // namespace espalier
