#pragma once
/// All samples of a rank through a decoder block.

#include "src/model/decoder_block.h"
#include "src/samples/hidden_states.h"

namespace espalier {

/// x <- block(x) for every sample that x holds, wherever they lie.
void pass_through(Device& device, DecoderBlock& decoder, const BlockWeights& weights, HiddenStates& x);

}  // namespace espalier
