#pragma once
/// How the ranks of a group share an optimiser's steps: one rank takes them alone, on samples that the others send to
/// it, or all compute some of a step's samples and each steps the rows of its part (as ZeRO-1).

#include "src/blocks/weight_partition.h"
#include "src/method/prune_options.h"
#include "src/model/decoder_block.h"
#include "src/optimize/optimizer_state.h"
#include "src/samples/drawn_samples.h"

#include <functional>
#include <memory>
#include <vector>

namespace espalier {

/// Where the state of a block's optimiser lies: on the block's owner for steps of one sample, an equal part on every
/// rank for mini-batches. Without optimisation it is where scores are computed.
WeightPartition partition_of_steps(const GroupContext& context, const PruneOptions& options, std::size_t block);

/// Forward and backward pass number `index` of this rank's passes of a step, weight gradients of the loss into the
/// sink.
using StepPass = std::function<void(std::size_t index, WeightGradientSink& sink)>;

class StepSharing {
  public:
    virtual ~StepSharing() = default;
    /// Who computes which samples of a step.
    virtual StepAssignment assignment() const = 0;
    /// One step: rank r makes the passes [offsets[r], offsets[r + 1]) of it. Collective.
    virtual void take(const OptimizerStep& step, const std::vector<std::size_t>& offsets, const BlockTensor* held_mask,
                      const StepPass& pass) = 0;
    /// After some steps: all ranks have the same weights for their passes again. Collective.
    virtual void settle() = 0;
};

/// The one that fits partition_of_steps. `state` outlives it.
std::unique_ptr<StepSharing> make_step_sharing(const GroupContext& context, const PruneOptions& options,
                                               std::size_t block, const OptimizerState& state);

}  // namespace espalier
