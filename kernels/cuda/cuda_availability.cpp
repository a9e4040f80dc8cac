// Asks the CUDA runtime which GPUs are there. Linked statically, so that the program starts on machines without a
// driver.
#include "kernels/device.h"

#include <cuda_runtime_api.h>

#include <string>

namespace espalier {

CudaAvailability cuda_availability() {
    int gpus = 0;
    const cudaError_t status = cudaGetDeviceCount(&gpus);
    if (status != cudaSuccess) {
        return {true, 0, std::string("built with CUDA; no usable GPU here: ") + cudaGetErrorString(status)};
    }
    std::string names;
    for (int gpu = 0; gpu < gpus; ++gpu) {
        cudaDeviceProp properties{};
        if (cudaGetDeviceProperties(&properties, gpu) == cudaSuccess) {
            names += std::string(gpu == 0 ? ": " : ", ") + properties.name;
        }
    }
    return {true, gpus, "built with CUDA; " + std::to_string(gpus) + " GPU(s)" + names};
}

}  // namespace espalier
