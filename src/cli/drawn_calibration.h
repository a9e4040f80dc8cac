#pragma once
/// Calibration without a corpus: tokens that a run draws from its model before it begins, or has drawn already.

#include "io/drawn_tokens.h"
#include "src/cli/device_options.h"
#include "src/cli/option_set.h"
#include "src/report/progress.h"
#include "src/weights/model_source.h"

#include <cstdint>
#include <filesystem>
#include <functional>
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

struct DrawingRequest {
    const ModelSource& source;
    std::string name;  ///< "self:128x2048"
    std::uint64_t seed = 0;
    std::filesystem::path output;  ///< the run's folder
    bool fresh = false;            ///< it is to be started anew
};

/// Draws with all ranks' devices what is asked for, unless the run's folder keeps it already. `before_it` is called on
/// rank 0 first, for all that would refuse the run. Collective.
DrawnCalibration draw_calibration(Session& session, const ChosenDevice& chosen, const DrawingRequest& request,
                                  const std::function<void()>& before_it, Progress& progress);

}  // namespace espalier
