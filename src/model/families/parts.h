#pragma once
/// What several families share: parts of a configuration, and the usual table of tensors.

#include "src/model/block_layout.h"
#include "src/model/config_fields.h"
#include "src/model/model_config.h"

#include <optional>
#include <string>

namespace espalier {

/// All blocks rotate queries and keys in the same way.
void use_rope_everywhere(const ConfigFields& fields, ModelConfig& config, bool partial = false);

/// All blocks have the biases that attention_bias and mlp_bias say, or none.
void read_biases(const ConfigFields& fields, ModelConfig& config, bool of_mlp);

/// All blocks have this window, if there is one.
void use_window_everywhere(std::optional<std::size_t> window, ModelConfig& config);

/// The sliding window, if any block uses one: sequences within it mean the same to programs that heed it and to those
/// that do not. `used`: what use_sliding_window means when it is missing.
std::optional<std::size_t> read_sliding_window(const ConfigFields& fields, const ModelConfig& config, bool used);

/// The seven matrices of a block, its four inputs, its norms, then biases (as the first block's specification
/// says), by LLaMA's names. Behind `prefix` stand the decoder's tensors, behind `head_prefix` the head's.
BlockLayout gated_decoder_layout(const ModelConfig& config, const std::string& prefix = "model.",
                                 const std::string& head_prefix = "");
inline BlockLayout llama_layout(const ModelConfig& config) {
    return gated_decoder_layout(config);
}

}  // namespace espalier
