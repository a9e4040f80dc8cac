#pragma once
/// Which part of a token file a run calibrates with.

#include "io/token_file.h"
#include "src/cli/option_set.h"
#include "src/samples/calibration_tokens.h"

#include <string>

namespace espalier {

/// Tokens of a sample or window, at most, unless --sequence-length says otherwise.
inline constexpr std::size_t longest_by_default = 2048;

/// Tokens of a row of a text that is to be evaluated, which are its windows unless told otherwise; all of it when it
/// has no rows.
inline std::size_t row_of_text(const TokenTable& text) {
    return text.columns >= 2 ? text.columns : text.ids.size();
}

/// Samples and sequence length from the options and what the file holds; cuts the tokens accordingly and records the
/// values that were not given; of samples those are `usual_samples`, at most, and of drawn tokens all. Throws
/// InputError naming `file`.
CalibrationTokens choose_calibration(OptionSet& options, const TokenTable& table, const std::string& file,
                                     std::size_t usual_samples = 128);

}  // namespace espalier
