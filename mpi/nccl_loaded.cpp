// NCCL comes with the CUDA module, which a device of that module has loaded already.
#include "kernels/cuda_module.h"
#include "mpi/nccl_communicator.h"

namespace espalier {

std::unique_ptr<Communicator> make_nccl_communicator(Communicator& control, Device& device) {
    using Make = std::unique_ptr<Communicator> (*)(Communicator&, Device&);
    return (*static_cast<const Make*>(find_in_cuda_module("espalier_make_nccl_communicator")))(control, device);
}

}  // namespace espalier
