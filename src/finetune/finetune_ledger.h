#pragma once
/// Rank 0's books of a fine-tuning run: lock, manifest, metrics, events.

#include "io/drawn_tokens.h"
#include "src/base/clock.h"
#include "src/finetune/finetune_options.h"
#include "src/report/event_log.h"
#include "src/report/progress.h"
#include "src/report/run_identity.h"
#include "src/weights/finetune_manifest.h"
#include "src/weights/model_source.h"

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace espalier {

struct FinetuneFacts : SessionFacts {
    std::string arithmetic;
    std::string data_sha256;
};

/// Where a run stands when a session begins: the same on every rank.
struct FinetuneState {
    FinetuneProgress progress;
    std::map<std::size_t, FileRecord> checkpoint;  ///< empty at the beginning

    Json to_json() const;
    static FinetuneState from_json(const Json& json);
};

/// What a finished run took.
struct FinetuneCosts {
    std::size_t trained_values = 0;
    double flops = 0;                                     ///< of the last session
    std::size_t peak_bytes = 0, peak_resident_bytes = 0;  ///< of the device, and of the process, on the worst rank
};

class FinetuneLedger {
  public:
    /// Locks the folder and starts a new run, or goes on with the one it holds. Throws InputError when another run is
    /// writing, the folder holds something else, or the options differ from those of the run it holds (with the
    /// differences). `teacher` may be null.
    FinetuneLedger(const FinetuneOptions& options, const ModelSource& student, const ModelSource* teacher,
                   const FinetuneFacts& facts, Progress& progress);

    void say_opening() const;
    FinetuneState state() const;
    bool complete() const { return manifest_.complete; }
    const RunFolder& run() const { return run_; }
    /// Attributes of every file of trained tensors.
    std::map<std::string, std::string> attributes() const;

    /// Keeps tokens that were drawn for this run.
    void keep_data(const TokenTable& table, const DrawingRecipe& recipe);
    void record_step(std::size_t step, const StepRecord& record, double seconds);
    void record_look(const HeldOutRecord& look);
    /// From now on a resumed run begins after `step` steps with these files. `flops`: of this session, by all ranks.
    void commit_checkpoint(std::size_t step, const FinetuneProgress& progress,
                           const std::map<std::size_t, FileRecord>& files, double flops);
    void note_stop(std::size_t step);
    /// Marks the run complete.
    void finish(const FinetuneProgress& progress, const std::map<std::size_t, FileRecord>& files,
                const FinetuneCosts& costs);

  private:
    void start_or_resume();
    void save();
    Json metrics(const FinetuneCosts& costs) const;
    double seconds() const { return seconds_before_ + since_start_.seconds(); }

    const FinetuneOptions& options_;
    const ModelSource& student_;
    const ModelSource* teacher_;
    FinetuneFacts facts_;
    Progress& progress_;
    RunFolder run_;
    std::unique_ptr<RunLock> lock_;
    std::vector<std::string> opening_;
    FinetuneManifest manifest_;
    std::unique_ptr<EventLog> events_;
    double seconds_before_ = 0, flops_before_ = 0, flops_ = 0;
    Stopwatch since_start_;
};

}  // namespace espalier
