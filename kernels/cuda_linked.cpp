// Instead of kernels/cuda_loaded.cpp where the CUDA sources are part of the program: emulated and under sanitizers.
#include "kernels/cuda_module.h"

namespace espalier {

bool built_with_cuda() {
    return true;
}

CudaAvailability cuda_availability() {
    return cuda::availability();
}

std::unique_ptr<Device> make_cuda_device(const CudaOptions& options) {
    return cuda::make_device(options);
}

}  // namespace espalier
