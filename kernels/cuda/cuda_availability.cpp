// Asks the CUDA runtime which GPUs are there.
#include "kernels/cuda/least_shared_bytes.h"
#include "kernels/cuda_module.h"

#include <cuda_runtime_api.h>

#include <array>
#include <cstdio>
#include <string>

namespace espalier {

namespace {

std::string hexadecimal(const cudaUUID_t& uuid) {
    std::string text;
    for (const char byte : uuid.bytes) {
        std::array<char, 3> digits{};
        std::snprintf(digits.data(), digits.size(), "%02x", static_cast<unsigned>(static_cast<unsigned char>(byte)));
        text += digits.data();
    }
    return text;
}

/// Compute capability that the kernels are built for, at least.
constexpr int oldest_major = 8;

CudaAvailability unusable(const std::string& why) {
    CudaAvailability found;
    found.explanation = "built with CUDA; no usable GPU here: " + why;
    return found;
}

}  // namespace

CudaAvailability cuda::availability() {
    CudaAvailability found;
    const cudaError_t status = cudaGetDeviceCount(&found.gpus);
    if (status != cudaSuccess) {
        cudaGetLastError();
        if (status == cudaErrorInsufficientDriver) {  // also where there is none at all
            return unusable("no NVIDIA driver answers, or it is older than CUDA " +
                            std::to_string(CUDART_VERSION / 1000) + " needs");
        }
        return unusable(cudaGetErrorString(status));
    }
    std::string names;
    for (int gpu = 0; gpu < found.gpus; ++gpu) {
        cudaDeviceProp properties{};
        const cudaError_t asked = cudaGetDeviceProperties(&properties, gpu);
        if (asked != cudaSuccess) {
            cudaGetLastError();
            return unusable("GPU " + std::to_string(gpu) + " does not answer (" + cudaGetErrorString(asked) + ")");
        }
        if (properties.major < oldest_major || properties.sharedMemPerBlockOptin < cuda::least_shared_bytes) {
            return unusable("GPU " + std::to_string(gpu) + ", " + properties.name + ", has compute capability " +
                            std::to_string(properties.major) + "." + std::to_string(properties.minor) + " and " +
                            std::to_string(properties.sharedMemPerBlockOptin >> 10) +
                            " KiB of shared memory for a block; 8.0 and 163 KiB (A100, H100) are needed");
        }
        names += std::string(gpu == 0 ? ": " : ", ") + properties.name;
        found.uuids.push_back(hexadecimal(properties.uuid));
    }
    found.explanation = "built with CUDA; " + std::to_string(found.gpus) + " GPU(s)" + names;
    return found;
}

}  // namespace espalier
