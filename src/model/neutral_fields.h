#pragma once
/// Fields of config.json that change what a decoder computes, and the values with which they change nothing.

#include "src/base/json.h"
#include "src/model/model_config.h"

#include <string>

namespace espalier {

/// Checks `json`, the config.json that `config` was parsed from, and its RoPE objects against the table of all such
/// fields that LLaMA-like models are known to carry. Throws InputError that begins with `source` and names the field,
/// its value and the neutral ones, when a field that the model's family does not read has any other value. Null
/// counts as absent.
void refuse_other_than_neutral(const Json& json, const ModelConfig& config, const std::string& source);

}  // namespace espalier
