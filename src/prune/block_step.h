#pragma once
/// A block's way through the ranks of its group: to their devices, pruned or passed through, back to host memory. A run
/// (pipeline) and its rehearsal (src/plan/rehearsal) take the same steps.

#include "src/blocks/block_loader.h"
#include "src/blocks/block_writer.h"
#include "src/blocks/phase_clock.h"
#include "src/prune/block_pruner.h"

#include <cstddef>

namespace espalier {

/// Of all blocks of a group; everything outlives the steps.
struct BlockStepContext {
    const GroupContext& group;
    const PruneOptions& options;
    const BlockStorage& stored;   ///< as dense blocks are read
    const BlockStorage& written;  ///< as blocks are written
    const BlockLoader& loader;
    BlockWeights& weights;  ///< the group's block on this rank's device
    BlockPruner& pruner;
    PhaseClock& clock;
};

class BlockStep {
  public:
    explicit BlockStep(const BlockStepContext& context) : c_(context) {}

    /// Between two blocks: has a signal to stop come to any of the ranks? Batch systems send it to all. Collective.
    static bool should_stop(Communicator& ranks);

    /// Brings the block to all ranks, prunes it as the options say, or rounds it to the output type when it is only
    /// copied, and replaces `x` by the inputs of the next block. `part` is what this rank has read of it. Collective.
    PrunedBlock take(std::size_t block, const BlockPart& part, HiddenStates& x);

    /// The block in host memory as it is to be written, with the mask. On its owner.
    BlockToWrite copy_to_host(const PrunedBlock& result, const BlockPart& part) const;

  private:
    void measure_rounding(const BlockPart& part, PrunedBlock& result);

    BlockStepContext c_;
};

}  // namespace espalier
