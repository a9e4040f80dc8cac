// Asks the CUDA runtime which GPUs are there. Linked statically, so that the program starts on machines without a
// driver.
#include "kernels/device.h"

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

}  // namespace

CudaAvailability cuda_availability() {
    CudaAvailability found;
    found.compiled_in = true;
    const cudaError_t status = cudaGetDeviceCount(&found.gpus);
    if (status != cudaSuccess) {
        cudaGetLastError();
        found.gpus = 0;
        found.explanation = std::string("built with CUDA; no usable GPU here: ") + cudaGetErrorString(status);
        return found;
    }
    std::string names;
    for (int gpu = 0; gpu < found.gpus; ++gpu) {
        cudaDeviceProp properties{};
        if (cudaGetDeviceProperties(&properties, gpu) != cudaSuccess) continue;
        names += std::string(gpu == 0 ? ": " : ", ") + properties.name;
        found.uuids.push_back(hexadecimal(properties.uuid));
    }
    found.explanation = "built with CUDA; " + std::to_string(found.gpus) + " GPU(s)" + names;
    return found;
}

}  // namespace espalier
