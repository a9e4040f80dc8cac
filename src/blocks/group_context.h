#pragma once
/// What the ranks of one block group share while they work on its blocks.

#include "kernels/device.h"
#include "mpi/communicator.h"
#include "mpi/topology.h"
#include "src/model/block_layout.h"
#include "src/model/model_config.h"

#include <cstddef>
#include <vector>

namespace espalier {

/// References live as long as the run.
struct GroupContext {
    Device& device;
    Communicator& group;    ///< for tensors of the device
    Communicator& control;  ///< the same ranks, for host memory
    const Topology& topology;
    const BlockGroup& block_group;
    const ModelConfig& config;
    const BlockLayout& layout;
    std::size_t tokens;  ///< of one sample

    std::size_t me() const { return static_cast<std::size_t>(group.rank()); }
    std::size_t ranks() const { return static_cast<std::size_t>(group.size()); }
    IndexRange my_samples() const { return topology.samples_of(block_group, me()); }
    std::size_t holder_of(std::size_t sample) const { return topology.holder_of(block_group, sample); }
    /// Those of the ascending `samples` that this rank holds.
    std::vector<std::size_t> mine_of(const std::vector<std::size_t>& samples) const;
};

/// Sum over samples of one float64 value each, added in sample order on every rank. `values` are those of this rank's
/// samples in `samples` (ascending list, the same on every rank). Collective.
double sum_in_sample_order(const GroupContext& context, const std::vector<std::size_t>& samples,
                           const std::vector<double>& values);

/// offsets[r] = how many of the ascending `samples` are held by ranks below r; times `width`.
std::vector<std::size_t> sample_offsets(const GroupContext& context, const std::vector<std::size_t>& samples,
                                        std::size_t width);

}  // namespace espalier
