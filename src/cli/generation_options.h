#pragma once
/// Options of text that is drawn from a model.

#include "io/drawn_tokens.h"
#include "src/cli/option_set.h"
#include "src/evaluate/generation.h"
#include "src/weights/model_source.h"

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

/// How the tokens are drawn, and from what; goes into the file that holds them.
DrawingRecipe recipe_of(const GenerationOptions& options, const ModelSource& source);

}  // namespace espalier
