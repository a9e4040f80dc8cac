#pragma once
/// A whole run foreseen: seconds, memory, bytes, for given ranks or for the best way to use them. Built on rehearsals
/// of one block, since all blocks of a model have one shape.

#include "src/plan/rehearsal.h"

#include <cstddef>
#include <optional>
#include <vector>

namespace espalier {

/// What is planned. References outlive the plan.
struct PlannedModel {
    const ModelConfig& config;
    const BlockLayout& layout;
    const BlockStorage& storage;
};

struct RunPlan {
    std::size_t ranks = 1;
    std::size_t block_groups = 1, shards = 1, ro_batch = 1;
    std::size_t ranks_of_group = 1;
    Rehearsal block;           ///< of the block's owner in a group
    double block_seconds = 0;  ///< the rehearsed ones, or its share of the file system's when that is longer
    double dense_seconds = 0;  ///< until the last group has its first hidden states
    double run_seconds = 0;
    double bytes_read = 0, bytes_written = 0;  ///< of the run, from and to files
    double bytes_communicated = 0;             ///< sent by all ranks
    double flops = 0;                          ///< of all ranks, about: the owner's share times the ranks
    std::size_t memory_bytes = 0;              ///< of a rank's device
    std::size_t host_bytes = 0;  ///< of a rank's process: blocks being read and written, hidden states when
                                 ///< they lie there, libraries
    bool bound_by_files = false;

    double device_hours() const { return run_seconds * static_cast<double>(ranks) / 3600; }
};

/// The run as `options` say, on `ranks` ranks. Throws InputError for groups or shards that do not fit, ResourceError
/// when a rank's memory is not enough.
RunPlan plan_run(const PlannedModel& model, const PruneOptions& options, std::size_t ranks, const DeviceModel& device);

/// The same from a rehearsal that has been made, on a real device for instance, of a rank in a group of the size that
/// group_size says.
RunPlan extrapolate(const PlannedModel& model, const PruneOptions& options, std::size_t ranks,
                    const DeviceModel& device, Rehearsal block);
/// The rank of a group of `members` that holds the most samples, the first of several: the one to rehearse.
std::size_t busiest_rank(const PruneOptions& options, std::size_t members);
/// Ranks of the smallest block group, which is the slowest.
std::size_t group_size(const PlannedModel& model, const PruneOptions& options, std::size_t ranks);

/// Which of block groups, shards and mini-batches may be chosen; given values are kept.
struct PlanChoice {
    std::optional<std::size_t> block_groups, shards, ro_batch;
};

/// The fastest plan on `ranks` ranks; none when no choice fits into memory.
std::optional<RunPlan> best_plan(const PlannedModel& model, const PruneOptions& options, const PlanChoice& choice,
                                 std::size_t ranks, const DeviceModel& device);

}  // namespace espalier
