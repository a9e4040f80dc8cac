#pragma once
/// Trained values on their way to files and back: checkpoints, and what a run leaves. Unit after unit, each written by
/// one rank; what a file holds does not depend on the number of ranks.

#include "io/run_folder.h"
#include "src/finetune/trained_values.h"

#include <cstddef>
#include <map>
#include <vector>

namespace espalier {

/// This rank's parts of all units' values, in host memory: those that were best on the held-out samples.
struct ValuesOnHost {
    std::vector<std::vector<float>> parts;  ///< by unit

    static ValuesOnHost of(const TrainedValues& values);
    void restore(TrainedValues& values) const;
};

/// By unit: of every rank's files, on every rank.
using UnitRecords = std::map<std::size_t, FileRecord>;

class TrainedFiles {
  public:
    /// References outlive it. All members are collective.
    TrainedFiles(const TrainingContext& context, const RunFolder& run, int host_threads);

    /// Commits values, moments and `best` after `step` steps. Throws ResourceError.
    UnitRecords write_checkpoint(std::size_t step, const TrainedValues& values, const ValuesOnHost& best) const;
    /// Sets `values` and `best`, on any number of ranks. Throws InputError when a file is not the one of its record.
    void read_checkpoint(const UnitRecords& records, TrainedValues& values, ValuesOnHost& best) const;
    /// Commits the trained tensors of every unit that has some, under their names in the model: matrices in the output
    /// type, all others in float32.
    UnitRecords write_result(const TrainedValues& values, const std::map<std::string, std::string>& attributes) const;

  private:
    bool is_mine(std::size_t unit) const { return unit % context_.ranks() == context_.me(); }
    /// All of a unit's values, on every rank.
    std::vector<float> whole(const TrainedValues& values, std::size_t unit, std::span<const float> part) const;
    UnitRecords gather(const UnitRecords& mine) const;

    const TrainingContext& context_;
    const RunFolder& run_;
    int host_threads_;
};

}  // namespace espalier
