#pragma once
/// How much of regional optimisation is lost when weights are rounded to the type in which they are written.

#include "src/blocks/block_loader.h"
#include "src/blocks/group_context.h"
#include "src/model/block_weights.h"

namespace espalier {

/// Share of the surviving weights whose written value is that of the dense weight: `weights` hold values of `output`
/// exactly, `dense` is this rank's part of the block as it was read. Collective.
double unchanged_weight_share(const GroupContext& context, const BlockPart& dense, DType output,
                              const BlockWeights& weights, const BlockTensor& mask);

}  // namespace espalier
