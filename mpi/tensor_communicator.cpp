#include "mpi/tensor_communicator.h"

#include "mpi/nccl_communicator.h"

namespace espalier {

TensorCommunicator::TensorCommunicator(Communicator& control, Device& device) : control_(control) {
    // A rank that is alone moves nothing, on whatever device.
    if (device.stream() != nullptr && control.size() > 1) own_ = make_nccl_communicator(control, device);
}

}  // namespace espalier
