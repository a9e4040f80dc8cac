#pragma once
/// Rank 0's books of a run: lock, manifest, metrics, events, and the files outside of the blocks.

#include "io/drawn_tokens.h"
#include "src/base/clock.h"
#include "src/method/prune_options.h"
#include "src/optimize/learning_rate_search.h"
#include "src/report/event_log.h"
#include "src/report/progress.h"
#include "src/report/run_identity.h"
#include "src/weights/manifest.h"
#include "src/weights/model_source.h"

#include <cstddef>
#include <future>
#include <map>
#include <memory>
#include <string>

namespace espalier {

struct RunFacts : SessionFacts {
    ComputedOn computed_on;
    std::string calibration_sha256;
};

/// Where a run stands when a session begins: the same on every rank.
struct RunState {
    std::map<std::size_t, FileRecord> committed;
    std::optional<double> learning_rate;  ///< that a search has found

    Json to_json() const;
    static RunState from_json(const Json& json);
};

class RunLedger {
  public:
    /// Locks the folder and starts a new run, or goes on with the one it holds. Throws InputError when another run is
    /// writing, the folder holds something else, or the options differ from those of the run it holds (with the
    /// differences).
    RunLedger(const PruneOptions& options, const ModelSource& source, const RunFacts& facts, Progress& progress);

    /// What there is to say of the folder: a stale lock taken over, blocks that are committed already.
    void say_opening() const;
    RunState state() const;
    std::size_t blocks_done() const { return manifest_.blocks.size(); }
    bool complete() const { return manifest_.complete; }
    /// Attributes of every block file; they do not depend on when or where the run happens.
    std::map<std::string, std::string> block_attributes() const;

    /// Keeps tokens that were drawn for this run.
    void keep_calibration(const TokenTable& table, const DrawingRecipe& recipe);
    /// Starts writing non_block.h5 in the background.
    void start_outer_file(const ModelSource& source);
    void record_learning_rate(const LearningRateChoice& choice);
    /// A committed block; replaces the manifest.
    void record_block(std::size_t block, const BlockRecord& record);
    /// A run that ends before its last block: what it took so far goes into the manifest.
    void leave();
    /// Writes what is left, marks the run complete and returns metrics.json's content.
    Json finish(std::size_t peak_resident_bytes);

  private:
    /// metrics.json's content as it stands.
    Json metrics(std::size_t peak_resident_bytes) const;
    void start_or_resume(const ModelSource& source);
    void save();
    /// A file outside of the blocks, new or again.
    void enter(const FileRecord& record);
    /// Enters non_block.h5 once it is written, so that a failure to write it does not wait for the end.
    void take_outer_file(bool wait);

    const PruneOptions& options_;
    RunFacts facts_;
    Progress& progress_;
    RunFolder run_;
    std::unique_ptr<RunLock> lock_;
    std::vector<std::string> opening_;
    Manifest manifest_;
    std::unique_ptr<EventLog> events_;
    std::string model_type_;
    std::size_t block_weights_ = 0;
    double seconds_before_ = 0;
    Stopwatch since_start_;
    std::future<FileRecord> outer_file_;
    std::vector<std::string> block_names_, outer_names_;
    std::vector<std::pair<std::size_t, BlockRecord>> early_blocks_;
};

}  // namespace espalier
