#pragma once
/// Summed squared output error of a block against its dense outputs.

#include "src/blocks/group_context.h"
#include "src/model/decoder_block.h"
#include "src/samples/dense_outputs.h"
#include "src/samples/hidden_states.h"

#include <vector>

namespace espalier {

/// sum over `samples` of ||f(x) - f0(x)||^2 / sum of ||f0(x)||^2, in sample order. Collective.
double relative_output_error(const GroupContext& context, DecoderBlock& decoder, const BlockWeights& weights,
                             const HiddenStates& x, const DenseOutputs& dense_outputs,
                             const std::vector<std::size_t>& samples);

}  // namespace espalier
