#pragma once
/// Block groups start from dense hidden states: each group passes its samples through its dense blocks and hands them,
/// sample by sample, to the ranks of the next group.

#include "mpi/communicator.h"
#include "mpi/topology.h"
#include "src/prune/hidden_states.h"

#include <memory>
#include <vector>

namespace espalier {

/// Both ends of the way from `from` to `to`. Messages between two ranks go in sample order.
class DenseHandoff {
  public:
    DenseHandoff(Communicator& world, const Topology& topology, const BlockGroup& from, const BlockGroup& to)
        : world_(world), topology_(topology), from_(from), to_(to) {}

    /// Sends one sample whose memory stays untouched until finish(); a sample that stays on this rank is copied to
    /// `local`.
    void send(Device& device, std::size_t sample, TensorView hidden_states, HiddenStates* local);
    /// Receives all samples of this rank that come from other ranks, and waits for them.
    void receive(Device& device, HiddenStates& destination);
    /// Waits until everything sent may be overwritten.
    void finish();

  private:
    void receive_one_by_one(Device& device, HiddenStates& destination);

    Communicator& world_;
    const Topology& topology_;
    const BlockGroup& from_;
    const BlockGroup& to_;
    std::vector<std::unique_ptr<Exchange>> sending_;
};

}  // namespace espalier
