#pragma once
/// Named choices of a method with its options: what is not said otherwise comes from them.

#include "src/cli/drawn_calibration.h"
#include "src/cli/option_set.h"

namespace espalier {

/// --preset.
OptionSpec preset_option_spec();

/// Gives the values of --preset, if there is one, to options that were given nowhere else. `asked`: what --calibration
/// holds, or is to be drawn. Throws InputError when there is no such preset.
void apply_preset(OptionSet& options, const RequestedTokens& asked);

}  // namespace espalier
