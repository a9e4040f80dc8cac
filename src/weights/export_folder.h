#pragma once
/// A completed run as a Hugging Face folder that transformers and the inference servers load as it is: dense
/// safetensors with zeros, same tensor names and shards as the source.

#include "src/weights/model_source.h"

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace espalier {

/// Writes `output`. `run`: a completed run, of pruning or of fine-tuning. `dense`: the model that it was pruned from,
/// when that is not where the run found it; may be a run itself. Throws InputError when the model is another one, or
/// `output` exists. Returns what the log should say of the dense model, line by line.
std::vector<std::string> export_run(const ModelSource& run, const std::filesystem::path& output,
                                    const std::optional<std::filesystem::path>& dense,
                                    const std::function<void(const std::string&)>& progress);

/// A folder that appears complete or not at all: `write` fills output + ".partial", which is renamed last. `what` says
/// what is written, for whoever finds a part of it. Throws InputError when `output` exists.
void write_folder_at_once(const std::filesystem::path& output, const std::string& what,
                          const std::function<void(const std::filesystem::path&)>& write);

}  // namespace espalier
