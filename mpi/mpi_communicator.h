#pragma once
/// The data plane over MPI on host memory. Only files in mpi/ may include this header, which knows mpi.h.

#include "mpi/communicator.h"

#include <mpi.h>

namespace espalier {

/// Throws Error(resources) with MPI's own words unless `code` is MPI_SUCCESS.
void check_mpi(int code, const char* call);

class MpiCommunicator final : public Communicator {
  public:
    /// Takes ownership of `communicator` when `owned`; sets MPI_ERRORS_RETURN on it.
    MpiCommunicator(MPI_Comm communicator, bool owned);
    ~MpiCommunicator() override;

    int rank() const override { return rank_; }
    int size() const override { return size_; }
    int world_rank(int rank) const override;
    /// Waits for all `requests`, which are cleared. `peers`: the rank at the other end of each, or none when all ranks
    /// take part. Throws ResourceError after the deadline.
    void wait_all(std::vector<MPI_Request>& requests, std::span<const int> peers) const;

  protected:
    std::unique_ptr<Exchange> start_messages(std::span<const Message> sends,
                                             std::span<const Message> receives) override;
    void wait_for_all() override;
    void broadcast_bytes(std::span<std::byte> data, int root) override;
    std::unique_ptr<Exchange> start_all_gather_bytes(std::span<std::byte> data,
                                                     std::span<const std::size_t> offsets) override;

  private:
    /// Those, by their number in the world, that have requests under way.
    std::vector<int> silent_peers(std::span<const MPI_Request> requests, std::span<const int> peers) const;

    MPI_Comm communicator_;
    bool owned_;
    int rank_ = 0;
    int size_ = 1;
};

}  // namespace espalier
