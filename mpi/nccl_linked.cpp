// Instead of mpi/nccl_loaded.cpp where the CUDA sources are part of the program: emulated and under sanitizers.
#include "mpi/nccl_communicator.h"

namespace espalier {

std::unique_ptr<Communicator> make_nccl_communicator(Communicator& control, Device& device) {
    return nccl::make_communicator(control, device);
}

}  // namespace espalier
