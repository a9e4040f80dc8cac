#pragma once
/// One process plays one rank of many: it computes what that rank computes, and its communicator lets the time pass
/// that a network model says and counts the bytes, without any other rank.
///
/// The numbers of a dry run mean nothing; only its counts and its time do. So that kernels work on ordinary values, a
/// gather repeats the rank's own part in the others' places (of a block's weights, for instance), and what other ranks
/// would send is zero.

#include "kernels/device.h"
#include "mpi/communicator.h"
#include "src/base/clock.h"
#include "src/plan/network_model.h"

#include <memory>

namespace espalier {

class DryRunCommunicator final : public Communicator {
  public:
    /// Which memory the verbs are called with.
    enum class Memory {
        host,    ///< values are made up as above
        device,  ///< the same, through `device`
        none,    ///< of a device that only counts: nothing is touched
    };

    /// `clock` and `device` outlive it. With Memory::device its operations are waited for before time
    /// passes.
    DryRunCommunicator(int rank, int size, NetworkModel network, Clock& clock, Memory memory, Device* device = nullptr);

    int rank() const override { return rank_; }
    int size() const override { return size_; }

  protected:
    std::unique_ptr<Exchange> start_messages(std::span<const Message> sends,
                                             std::span<const Message> receives) override;
    void wait_for_all() override;
    void broadcast_bytes(std::span<std::byte> data, int root) override;
    std::unique_ptr<Exchange> start_all_gather_bytes(std::span<std::byte> data,
                                                     std::span<const std::size_t> offsets) override;

  private:
    void reach_now();
    /// The wire is busy with one thing after the other; returns when `seconds` more of it are done.
    double reserve(double seconds);
    void zero(std::byte* data, std::size_t bytes);
    void copy(const std::byte* from, std::byte* to, std::size_t bytes);

    int rank_, size_;
    NetworkModel network_;
    Clock& clock_;
    Memory memory_;
    Device* device_;
    double free_at_ = 0;
};

}  // namespace espalier
