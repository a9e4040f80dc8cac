#pragma once
/// Options of text that is drawn from a model.

#include "src/cli/option_set.h"
#include "src/evaluate/generation.h"
#include "src/weights/model_source.h"

#include <map>
#include <string>
#include <vector>

namespace espalier {

/// How tokens are drawn: --temperature, --top-p, --seed, --begin, --batch.
std::vector<OptionSpec> sampling_option_specs();

/// What a document begins with: `bos` (the token that config.json names), `vocabulary` (each sample its own token,
/// drawn evenly), or a token's id. Sets `prompts` of `options` for its samples. Throws InputError.
void set_begin(const std::string& begin, const ModelSource& source, GenerationOptions& options);

/// The options of `espalier generate`, all but those of the device. Throws InputError.
GenerationOptions parse_generation_options(OptionSet& options, const ModelSource& source, std::size_t ranks);

/// Where the tokens come from, for the file that holds them.
std::map<std::string, std::string> attributes_of_drawn_tokens(const GenerationOptions& options,
                                                              const ModelSource& source);

}  // namespace espalier
