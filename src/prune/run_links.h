#pragma once
/// The communicators of a run on one rank: its block group's, and the world's where there are several groups.

#include "mpi/session.h"
#include "mpi/tensor_communicator.h"
#include "mpi/topology.h"

#include <memory>
#include <optional>
#include <string>

namespace espalier {

class RunLinks {
  public:
    /// All outlive it. Collective over the world.
    RunLinks(const Session& session, Device& device, const Topology& topology);

    /// The ranks of this rank's groups, which are the same in every round: for host memory, and for tensors.
    Communicator& group() const { return *group_; }
    Communicator& group_tensors() const { return group_tensors_.get(); }
    /// All ranks, for tensors. Only where there are several groups.
    Communicator& world_tensors() const { return world_tensors_->get(); }
    /// For the sentence of a rank that waits too long for others than those of its group.
    void set_place_of_all(const std::string& place) const;

  private:
    const Session& session_;
    std::unique_ptr<Communicator> group_;
    TensorCommunicator group_tensors_;
    std::optional<TensorCommunicator> world_tensors_;
};

}  // namespace espalier
