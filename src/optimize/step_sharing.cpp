#include "src/optimize/step_sharing.h"

#include "src/optimize/owner_steps.h"
#include "src/optimize/sharded_steps.h"

namespace espalier {

namespace {

std::size_t owner_of(const GroupContext& context, std::size_t block) {
    return static_cast<std::size_t>(context.block_group.owner_of(block));
}

}  // namespace

WeightPartition partition_of_steps(const GroupContext& context, const PruneOptions& options, std::size_t block) {
    if (options.owner_steps_alone()) {
        return WeightPartition::all_on(context.layout, context.ranks(), owner_of(context, block));
    }
    return WeightPartition::balanced(context.layout, context.ranks());
}

std::unique_ptr<StepSharing> make_step_sharing(const GroupContext& context, const PruneOptions& options,
                                               std::size_t block, const OptimizerState& state) {
    if (options.owner_steps_alone()) {
        return std::make_unique<OwnerSteps>(state, StepAssignment::all_on(context.ranks(), owner_of(context, block)),
                                            context.me());
    }
    return std::make_unique<ShardedSteps>(context, options.samples_of_pass(), state);
}

}  // namespace espalier
