#pragma once
/// Calibration without a corpus: tokens that a run draws from its model before it begins, or has drawn already.

#include "io/drawn_tokens.h"
#include "src/cli/device_options.h"
#include "src/cli/option_set.h"
#include "src/report/progress.h"
#include "src/samples/calibration_tokens.h"
#include "src/weights/model_source.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

namespace espalier {

/// What a run calibrates with, as its options ask for it.
struct RequestedTokens {
    CalibrationTokens tokens;  ///< those that are still to be drawn are 0
    std::string sha256;        ///< of the file, or of what is known of drawn tokens
    std::size_t given = 0;     ///< samples that are there: the first ones
    std::size_t asked = 0;     ///< samples without continuations, given or to be drawn

    bool are_there() const { return given == tokens.samples; }
    /// Samples that are added for each that was asked for.
    std::size_t continuations() const { return tokens.samples / asked - 1; }
    /// Adds so many, to be drawn. Throws InputError when they are too many.
    void add_continuations(std::size_t continuations);
};

/// The samples that --samples and --sequence-length choose from the token file or the drawn tokens `name`, at most
/// `usual_samples` of a file unless told otherwise. Throws InputError.
RequestedTokens request_tokens(OptionSet& options, const std::string& name, std::size_t vocabulary,
                               std::size_t usual_samples = 128);

/// How a run draws tokens from `source`: at temperature 1, each sample after the model's beginning of a document, or
/// after a token of its own where it has none; or, where samples are given, each after a piece of one of them: those
/// that are added to drawn samples are drawn as they are.
struct DrawnCalibration {
    TokenTable table;  ///< all samples, those that were given first
    DrawingRecipe recipe;
};

struct DrawingRequest {
    const ModelSource& source;
    std::string name;  ///< of the tokens: "self:128x2048", or a file that is gone on from
    const RequestedTokens& tokens;
    std::uint64_t seed = 0;
    std::filesystem::path output;  ///< the run's folder
    bool fresh = false;            ///< it is to be started anew
};

/// Draws with all ranks' devices what is asked for, unless the run's folder keeps it already. `before_it` is called on
/// rank 0 first, for all that would refuse the run. Collective.
DrawnCalibration draw_calibration(Session& session, const ChosenDevice& chosen, const DrawingRequest& request,
                                  const std::function<void()>& before_it, Progress& progress);

}  // namespace espalier
