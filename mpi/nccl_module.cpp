// What the program finds of NCCL when it has loaded the CUDA module: a pointer to the function.
#include "mpi/nccl_communicator.h"

namespace espalier {

extern "C" {
extern std::unique_ptr<Communicator> (*const espalier_make_nccl_communicator)(Communicator&, Device&);
std::unique_ptr<Communicator> (*const espalier_make_nccl_communicator)(Communicator&,
                                                                       Device&) = nccl::make_communicator;
}

}  // namespace espalier
