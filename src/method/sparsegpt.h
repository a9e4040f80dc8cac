#pragma once
/// SparseGPT (Frantar & Alistarh 2023) on one block, in the order of the block: q k v, then o, then gate up, then down.
/// Each group is pruned with the Gram matrix of its shared input as it is after the groups before it were pruned.

#include "src/blocks/group_context.h"
#include "src/blocks/phase_clock.h"
#include "src/method/prune_options.h"
#include "src/model/decoder_block.h"
#include "src/samples/hidden_states.h"

#include <string>
#include <vector>

namespace espalier {

/// Prunes `weights` in place by the sweep's own choice, and fills `mask` on all ranks, or by the `mask` that is given,
/// complete on all ranks. Returns sentences for the log (raised damping). Throws NonFiniteError, or InputError naming
/// the tensor when its Gram matrix stays indefinite. Collective.
std::vector<std::string> prune_with_sparsegpt(const GroupContext& context, const PruneOptions& options,
                                              std::size_t block, DecoderBlock& decoder, const HiddenStates& x,
                                              BlockWeights& weights, SweepMask origin, BlockTensor& mask,
                                              PhaseClock& clock);

}  // namespace espalier
