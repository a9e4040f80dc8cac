#pragma once
/// The data plane between GPUs: NCCL on a stream of its own, ordered with the device's stream by events, so that the
/// host waits for nothing. A rank that fails or stays away is noticed whenever the host does wait
/// (Device::add_wait_poll): NCCL's asynchronous errors and a deadline are looked at, and the communicator is aborted.

#include "kernels/device.h"
#include "mpi/communicator.h"

#include <memory>

namespace espalier {

/// Among the ranks of `control`, over which NCCL's unique id travels; each rank has a GPU of its own. Spans handed to
/// it are memory of `device`. Both must outlive it. Collective. Throws InputError when two ranks share a GPU,
/// ResourceError with NCCL's own words.
std::unique_ptr<Communicator> make_nccl_communicator(Communicator& control, Device& device);

namespace nccl {
/// The same, inside of the CUDA module (kernels/cuda_module.h).
std::unique_ptr<Communicator> make_communicator(Communicator& control, Device& device);
}  // namespace nccl

}  // namespace espalier
