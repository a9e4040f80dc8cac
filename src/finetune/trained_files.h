#pragma once
/// Trained values on their way to files and back: checkpoints, and what a run leaves. Unit after unit, each written by
/// one rank; what a file holds does not depend on the number of ranks.

#include "io/run_folder.h"
#include "src/finetune/trained_values.h"

#include <cstddef>
#include <functional>
#include <map>
#include <optional>
#include <vector>

namespace espalier {

/// The file of each unit; the same on every rank.
using UnitRecords = std::map<std::size_t, FileRecord>;

class TrainedFiles {
  public:
    /// References outlive it. All members are collective.
    TrainedFiles(const TrainingContext& context, const RunFolder& run, int host_threads);

    /// Commits what TrainedValues::checkpoint_states names, after `step` steps. Throws ResourceError.
    UnitRecords write_checkpoint(std::size_t step, const TrainedValues& values) const;
    /// Sets `values`, on any number of ranks. Throws InputError when a file is not the one of its record.
    void read_checkpoint(const UnitRecords& records, TrainedValues& values) const;
    /// Commits the trained tensors of every unit that has some, under their names in the model: matrices in the output
    /// type, all others in float32.
    UnitRecords write_result(const TrainedValues& values, const std::map<std::string, std::string>& attributes) const;

  private:
    /// Values, moments … of one unit.
    using Vectors = std::vector<std::vector<float>>;
    using PartsOf = std::function<Vectors(std::size_t unit)>;
    using Write = std::function<std::optional<FileRecord>(std::size_t unit, const Vectors&)>;

    std::size_t writer_of(std::size_t unit) const { return unit % context_.ranks(); }
    /// Whole vectors of those of `units` that this rank writes, from the parts of all ranks.
    std::map<std::size_t, Vectors> bring_to_writers(const TrainedValues& values, IndexRange units,
                                                    const PartsOf& parts_of) const;
    /// Every unit's vectors to the rank that writes it.
    UnitRecords write_all(const TrainedValues& values, const PartsOf& parts_of, const Write& write) const;
    UnitRecords gather(const UnitRecords& mine) const;

    const TrainingContext& context_;
    const RunFolder& run_;
    int host_threads_;
};

}  // namespace espalier
