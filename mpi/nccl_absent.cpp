// Compiled instead of mpi/nccl_communicator.cpp when the program is built without CUDA.
#include "mpi/nccl_communicator.h"
#include "src/base/error.h"

namespace espalier {

std::unique_ptr<Communicator> make_nccl_communicator(Communicator& /*control*/, Device& /*device*/) {
    throw InputError(
        "built without CUDA and NCCL; configure with -DESPALIER_CUDA=ON on a machine with the CUDA Toolkit");
}

}  // namespace espalier
