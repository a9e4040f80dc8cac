#pragma once
/// A whole pruning run on one rank: embed, block after block (read, gather, prune, write, propagate), commit.

#include "mpi/session.h"
#include "src/method/prune_options.h"
#include "src/prune/run_ledger.h"
#include "src/report/progress.h"
#include "src/samples/calibration_tokens.h"
#include "src/weights/model_source.h"

namespace espalier {

/// Everything that lives as long as the run, on this rank.
struct PipelineContext {
    Session& session;
    Device& device;
    const PruneOptions& options;
    const ModelSource& source;
    const CalibrationTokens& calibration;
    StoragePlace hidden_states;  ///< and of dense outputs
    RunLedger* ledger;           ///< rank 0 only
    const RunState& state;
    std::map<std::string, std::string> block_attributes;
    Progress& progress;
    int host_threads = 1;  ///< this rank's share of the cores, for work beside that of a GPU
};

/// Prunes all blocks that are not committed yet. Returns true when every block of the model is committed, false when a
/// signal (stop_request.h) stopped the run between two blocks; what was finished by then is committed. Collective.
bool prune_model(const PipelineContext& context);

}  // namespace espalier
