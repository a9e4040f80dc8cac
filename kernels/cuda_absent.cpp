// Compiled instead of kernels/cuda when the program is built without CUDA.
#include "kernels/device.h"

namespace espalier {

CudaAvailability cuda_availability() {
    return {false, 0, "built without CUDA; configure with -DESPALIER_CUDA=ON on a machine with the CUDA Toolkit"};
}

}  // namespace espalier
