#pragma once
/// manifest.json of a run of fine-tuning: what decided it, how far it has come, and the files that it vouches for.

#include "io/run_folder.h"
#include "src/base/json.h"
#include "src/weights/manifest.h"

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace espalier {

/// One step, as it was taken.
struct StepRecord {
    double language_model = 0, divergence = 0;  ///< means over its predictions, in nats
    double gradient_norm = 0;                   ///< before it was clipped
};

/// A look at the held-out samples after so many steps.
struct HeldOutRecord {
    std::size_t steps = 0;
    double language_model = 0, divergence = 0;
    double total = 0;  ///< what is minimised
};

/// How far a run has come. What is best on the held-out samples is what comes out of it.
struct FinetuneProgress {
    std::vector<StepRecord> steps;
    std::vector<HeldOutRecord> looks;

    /// Of the looks, the best one; none before the first.
    std::optional<std::size_t> best_look() const;
    std::size_t looks_since_best() const;
    Json to_json() const;
    /// Throws Json::Error.
    static FinetuneProgress from_json(const Json& json);
};

struct FinetuneManifest {
    std::string run_id, program_version;
    std::string base_path;  ///< absolute, or inside the run folder
    std::string base_identity;
    std::size_t blocks_in_model = 0;
    std::string teacher_path, teacher_identity;  ///< empty without one
    std::string data_path, data_sha256;
    Json options;     ///< decide the result
    Json provenance;  ///< command line, device, ranks … of the last session
    FinetuneProgress progress;
    std::optional<std::size_t> checkpoint_step;
    std::map<std::size_t, FileRecord> checkpoint;  ///< by block, the end of the model behind the last
    std::map<std::size_t, FileRecord> blocks;      ///< of a complete run: what it trained, in the same order
    std::vector<FileRecord> outer_files;           ///< of a complete run: adapters.h5, config.json
    bool complete = false;

    /// Whether the folder holds a run of fine-tuning, rather than of pruning.
    static bool is_in(const RunFolder& run);
    /// Where the model lies that the run began with.
    std::filesystem::path base_of(const RunFolder& run) const;
    /// Throws InputError when the folder has none, or when it cannot be used.
    static FinetuneManifest read(const RunFolder& run);
    void write(const RunFolder& run) const { run.write_manifest(to_json()); }
    Json to_json() const;
    /// Throws InputError naming `source`.
    static FinetuneManifest from_json(const Json& json, const std::string& source);
    /// SHA-256 over everything that decides the result.
    std::string configuration_sha256() const;
};

}  // namespace espalier
