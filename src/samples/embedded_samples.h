#pragma once
/// The hidden states that enter the first block.

#include "src/samples/hidden_states.h"
#include "src/weights/model_source.h"

#include <cstdint>
#include <span>

namespace espalier {

/// The samples of `x` <- the embeddings of their tokens; `ids` are those of all calibration samples.
void embed_samples(Device& device, const ModelSource& source, std::span<const std::int32_t> ids, HiddenStates& x);

}  // namespace espalier
