#pragma once
/// The communicator for tensors of a device: NCCL for GPUs, otherwise the one for host memory.

#include "kernels/device.h"
#include "mpi/communicator.h"

#include <memory>

namespace espalier {

class TensorCommunicator {
  public:
    /// Among the ranks of `control`, which must outlive it, for memory of `device`. Collective. Throws Error.
    TensorCommunicator(Communicator& control, Device& device);

    Communicator& get() const { return own_ ? *own_ : control_; }

  private:
    Communicator& control_;
    std::unique_ptr<Communicator> own_;
};

}  // namespace espalier
