#pragma once
/// The options that say how a model is pruned, for every command that prunes or plans it.

#include "src/cli/option_set.h"
#include "src/method/prune_options.h"
#include "src/weights/model_source.h"

#include <cstddef>
#include <vector>

namespace espalier {

/// --method, --pattern, … --output-dtype.
std::vector<OptionSpec> method_option_specs();

/// Their values with --model, for a model and a number of samples. Throws InputError.
PruneOptions parse_method_options(OptionSet& options, const ModelSource& source, std::size_t samples,
                                  std::size_t sequence_length);

}  // namespace espalier
