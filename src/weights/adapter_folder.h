#pragma once
/// What a run with plain LoRA has trained, as a folder that peft puts on the exported base.

#include "src/weights/finetuned_source.h"

#include <filesystem>

namespace espalier {

/// Writes adapter_config.json and adapter_model.safetensors. `base`: what the configuration names as the model that the
/// adapter belongs on, for instance the exported run. Throws InputError when the run's updates are masked, which no
/// adapter can say, when norms were trained, or when `output` exists.
void export_adapter(const FinetunedSource& run, const std::filesystem::path& output, const std::string& base);

}  // namespace espalier
