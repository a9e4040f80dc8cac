#pragma once
/// Start and end of the parallel program, and the control plane: small messages about success, progress and failure.
/// Always over MPI on the host, whatever the data plane uses.

#include "mpi/communicator.h"
#include "src/base/error.h"

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace espalier {

/// One per process, made first in main. Without a launcher (mpirun, srun) MPI is not started and the process is alone.
class Session {
  public:
    /// Starts MPI when a launcher is there. Throws InputError for a launch in which every task would run alone.
    Session();
    /// Ends MPI, unless an exception is unwinding (other ranks may be inside a collective: use abort).
    ~Session();
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    int rank() const { return rank_; }
    int size() const { return size_; }
    /// Ranks on this machine, and this rank's place among them.
    int local_rank() const { return local_rank_; }
    int local_size() const { return local_size_; }
    /// Ranks on this machine that may run on exactly the same cores as this one, itself included.
    int ranks_on_my_cores() const { return ranks_on_my_cores_; }
    bool launched() const { return launched_; }
    /// Throws InputError when Slurm has given this step, or a job without steps, another number of tasks than there are
    /// ranks: srun was forgotten, or each task runs alone.
    void check_tasks() const;

    /// All ranks. Owned by the session.
    Communicator& world() const { return *world_; }
    /// The given world ranks, in that order. Collective over the world: every rank passes the list of its own group.
    std::unique_ptr<Communicator> make_group(std::span<const int> world_ranks) const;

    /// Runs `step` on every rank and returns when all have succeeded. When it throws on any, every rank throws an Error
    /// with the sentence, status and number of the lowest failing rank. Collective. For steps without communication
    /// inside.
    void agree(const std::function<void()>& step) const;

    /// rank 0's text on every rank. Collective.
    std::string broadcast_text(const std::string& text) const;

    /// Sends a text to rank 0 without waiting for it (rank 0: puts it into its own box). Local.
    void post_to_root(const std::string& text);
    /// On rank 0: texts that have arrived since the last call, in order of arrival. Local, never waits.
    std::vector<std::string> collect_posts();

    /// Says the error on stderr and ends all ranks with its status. Of several ranks that fail for one reason at one
    /// time only one speaks: the one that the error names, else the lowest; its abort ends the others while they wait.
    [[noreturn]] void fail(const Error& error) const;

  private:
    struct Posts;
    bool launched_ = false;
    int rank_ = 0, size_ = 1, local_rank_ = 0, local_size_ = 1, ranks_on_my_cores_ = 1;
    int exceptions_at_start_ = 0;
    std::unique_ptr<Communicator> world_;
    std::unique_ptr<Posts> posts_;
};

}  // namespace espalier
