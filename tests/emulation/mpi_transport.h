#pragma once
/// Bytes between the emulated GPUs of several processes, over MPI. Messages have communicators and tags of their own
/// beside the program's, and go on whenever the program waits in MPI: it is linked with, or preloads, wrappers of
/// MPI_Init_thread, MPI_Finalize, MPI_Test and MPI_Testall that let streams run.

#include <mpi.h>

#include <cstddef>
#include <span>
#include <vector>

namespace espalier::emulation {

/// Of this process in MPI_COMM_WORLD; 0 when MPI has not been started.
int world_rank();
bool mpi_is_running();

/// Messages under way. Their memory belongs to it until they have arrived; when it is destroyed earlier, because a peer
/// never answered, memory and requests are kept until the program ends.
class Messages {
  public:
    Messages() = default;
    Messages(const Messages&) = delete;
    Messages& operator=(const Messages&) = delete;
    ~Messages();

    /// A send is not over before its receive has begun, as NCCL's may be.
    void send(int world_rank, int tag, std::span<const std::byte> bytes);
    /// The index of the receive, for `received`. From any rank: MPI_ANY_SOURCE.
    std::size_t receive(int world_rank, int tag, std::size_t bytes);
    /// True once all have arrived. Ends the program when one has another length than its receive expects.
    bool have_arrived();
    std::span<const std::byte> received(std::size_t index) const { return buffers_[index]; }

  private:
    std::vector<std::vector<std::byte>> buffers_;  ///< of every message
    std::vector<bool> is_receive_;
    std::vector<MPI_Request> requests_;
    bool done_ = true;
};

}  // namespace espalier::emulation
