#pragma once
/// A completed run as a Hugging Face folder that transformers and the inference servers load as it is: dense
/// safetensors with zeros, same tensor names and shards as the source.

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace espalier {

/// Writes `output` (built under output + ".partial", renamed last). `dense`: the model that the run was pruned from,
/// when it is not where the run found it; may be a run itself. Throws InputError when the run is not complete, the
/// model is another one, or `output` exists. Returns what the log should say of the dense model, line by line.
std::vector<std::string> export_run(const std::filesystem::path& run, const std::filesystem::path& output,
                                    const std::optional<std::filesystem::path>& dense,
                                    const std::function<void(const std::string&)>& progress);

}  // namespace espalier
