#pragma once
/// Named choices of a method with its options: what is not said otherwise comes from them.

#include "src/cli/option_set.h"

namespace espalier {

/// --preset.
OptionSpec preset_option_spec();

/// Gives the values of --preset, if there is one, to options that were given nowhere else. Throws InputError when there
/// is no such preset.
void apply_preset(OptionSet& options);

}  // namespace espalier
