#pragma once
/// What ranks tell rank 0 while a run goes on: blocks that they have committed, the learning rate that was found, that
/// they stopped. Rank 0 enters it into the ledger.

#include "mpi/session.h"
#include "src/prune/run_ledger.h"
#include "src/prune/run_message.h"
#include "src/report/progress.h"

#include <cstddef>

namespace espalier {

class RunMessages {
  public:
    /// `ledger` is null but on rank 0. All outlive it.
    RunMessages(Session& session, RunLedger* ledger, Progress& progress)
        : session_(session), ledger_(ledger), progress_(progress) {}

    /// Local, does not wait.
    void post(const RunMessage& message);

    /// Waits until every rank has come here; rank 0 enters the others' blocks meanwhile. True on every rank when any
    /// passes true: the run then stops. Collective.
    bool agree_to_stop(bool stop);
    /// On rank 0, enters what has arrived. Local, does not wait.
    void collect();
    /// Waits until every rank's messages are entered; rank 0 enters the others' blocks as they come, not only at the
    /// end. True when every one of `blocks` is committed, on every rank. Collective.
    bool finish(std::size_t blocks);

  private:
    void enter(const WrittenBlock& written);
    void enter(const LearningRateChoice& choice) { ledger_->record_learning_rate(choice); }
    void enter(const RankStopped& /*stopped*/) { a_rank_stopped_ = true; }
    void enter(const RankArrived& arrived);

    Session& session_;
    RunLedger* ledger_;
    Progress& progress_;
    std::size_t posted_ = 0;
    std::size_t received_ = 0;     ///< on rank 0, from all
    bool a_rank_stopped_ = false;  ///< as rank 0 has heard
    int arrived_ = 0;              ///< ranks that rank 0 has heard of in agree_to_stop
};

}  // namespace espalier
