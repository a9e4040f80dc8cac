#pragma once
/// Device memory that a run needs on one rank, counted before anything is allocated: what the passes of DecoderBlock,
/// the dense pass and regional optimisation allocate, item by item.

#include "mpi/ordered_sum.h"
#include "mpi/topology.h"
#include "src/method/pass_types.h"
#include "src/model/block_layout.h"
#include "src/model/model_config.h"
#include "src/samples/sample_store.h"

#include <cstddef>
#include <string>
#include <vector>

namespace espalier {

/// What the needs of a rank depend on.
struct MemoryNeeds {
    const PruneOptions& options;
    const ModelConfig& config;
    const BlockLayout& layout;
    PassTypes types;
    std::size_t samples = 0;        ///< of this rank, at most
    OrderedSumBuffers shards = {};  ///< of sums over the shards, at most
    std::size_t dense_samples = 0;  ///< that it passes to later block groups,
    bool keeps_dense = false;       ///< also while it prunes: there are several rounds of groups
    std::size_t ranks = 1;          ///< of its group
};

/// Those of a world rank, over all block groups that it works on.
MemoryNeeds memory_needs(const PruneOptions& options, const ModelConfig& config, const BlockLayout& layout,
                         const PassTypes& types, const Topology& topology, int rank);

struct MemoryItem {
    std::string name;
    std::size_t bytes;
};

struct MemoryPlan {
    StoragePlace hidden_states = StoragePlace::device;
    std::vector<MemoryItem> items;  ///< of the phase that needs the most
    std::size_t total() const;
    /// "weights 386 MiB, hidden states 4.0 GiB, ...", the largest first.
    std::string text() const;
};

/// Hidden states and dense outputs lie on the device when everything fits into `budget` bytes, else in host memory.
/// Throws ResourceError with the items when not even that is enough.
MemoryPlan plan_memory(const MemoryNeeds& needs, std::size_t budget);

}  // namespace espalier
