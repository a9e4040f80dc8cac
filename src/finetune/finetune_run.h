#pragma once
/// A whole run of fine-tuning on one rank: steps, looks at the held-out samples, checkpoints, and what comes out.

#include "mpi/session.h"
#include "src/finetune/finetune_ledger.h"
#include "src/finetune/training_context.h"

#include <string>

namespace espalier {

/// References live as long as the run.
struct FinetuneRunContext {
    const Session& session;
    const TrainingContext& training;
    FinetuneLedger* ledger;  ///< on rank 0
    const RunFolder& run;
    const FinetuneState& state;
    const std::map<std::string, std::string>& attributes;
    Progress& progress;
    int host_threads;
};

/// Returns false when a signal has stopped it, after a checkpoint. Collective over all ranks; a failure ends them all.
bool finetune_model(const FinetuneRunContext& context);

}  // namespace espalier
