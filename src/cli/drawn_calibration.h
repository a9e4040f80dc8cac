#pragma once
/// Calibration without a corpus: tokens that a run draws from its model before it begins, or has drawn already.

#include "io/drawn_tokens.h"
#include "src/cli/device_options.h"
#include "src/cli/option_set.h"
#include "src/report/progress.h"
#include "src/weights/model_source.h"

#include <filesystem>
#include <string>

namespace espalier {

/// The table of a token file, or of drawn tokens, which are not drawn yet. Throws InputError.
TokenTable read_or_name_tokens(const std::string& name, std::size_t vocabulary);

/// How a run draws tokens from `source`: at temperature 1, each sample after the model's beginning of a document, or
/// after a token of its own where it has none.
struct DrawnCalibration {
    TokenTable table;
    DrawingRecipe recipe;
};

/// Draws what `name` asks for with all ranks' devices, unless `output`, the run's folder, keeps it already and is not
/// to be started anew. Collective.
DrawnCalibration draw_calibration(Session& session, const ChosenDevice& chosen, const ModelSource& source,
                                  const std::string& name, std::uint64_t seed, const std::filesystem::path& output,
                                  bool fresh, Progress& progress);

}  // namespace espalier
