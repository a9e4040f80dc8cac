#pragma once
/// Token embedding without the whole table in memory.

#include "kernels/device.h"
#include "src/weights/model_source.h"

#include <cstdint>
#include <span>

namespace espalier {

/// hidden_states [tokens.size(), hidden], float32 <- rows of the embedding. The table is read once, panel by panel;
/// panels without a wanted token are skipped.
void embed_tokens(Device& device, const ModelSource& source, std::span<const std::int32_t> tokens,
                  TensorView hidden_states);

}  // namespace espalier
