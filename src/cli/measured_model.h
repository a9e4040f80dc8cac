#pragma once
/// A model whose likelihoods are measured: what `evaluate` and `score` have in common.

#include "src/cli/device_options.h"
#include "src/cli/option_set.h"
#include "src/evaluate/likelihoods.h"
#include "src/report/progress.h"
#include "src/weights/model_source.h"

#include <memory>
#include <span>
#include <string>
#include <vector>

namespace espalier {

/// --model, for the specs of both.
OptionSpec measured_model_option(const std::string& summary);

class MeasuredModel {
  public:
    // Both steps are to be made where the ranks agree about errors: each rank takes them for itself.
    /// Opens --model. References outlive it.
    MeasuredModel(Session& session, const OptionSet& options, Progress& progress);
    /// Checks the model's outer file and makes the device: what takes a while, after all else is known to be right.
    void prepare(const OptionSet& options);

    const ModelSource& source() const { return *source_; }
    /// On all ranks' devices; says where they are, after the words `of_part`. `advice` is for devices that are too
    /// small. Collective.
    std::vector<Likelihood> measure(std::span<const PackedSequences> passes, const std::string& advice,
                                    const std::string& of_part = {});

  private:
    Session& session_;
    Progress& progress_;
    std::unique_ptr<ModelSource> source_;
    ChosenDevice chosen_;
};

}  // namespace espalier
