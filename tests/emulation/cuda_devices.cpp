// The CUDA runtime's functions about GPUs and errors.
#include "tests/emulation/cuda_status.h"
#include "tests/emulation/execution.h"
#include "tests/emulation/gpu_memory.h"
#include "tests/emulation/settings.h"

#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace espalier::emulation {

namespace {

thread_local cudaError_t last_error = cudaSuccess;
thread_local int gpu_of_thread = 0;

bool gpu_exists(int gpu) {
    return gpu >= 0 && gpu < settings().gpus;
}

/// Differs from machine to machine; several simulated machines on one have Slurm's names.
std::string machine_name() {
    if (const char* const name = std::getenv("SLURMD_NODENAME")) return name;
    std::array<char, 256> name{};
    gethostname(name.data(), name.size() - 1);
    return name.data();
}

cudaUUID_t uuid_of(int gpu) {
    const std::size_t machine = std::hash<std::string>()(machine_name());
    const std::vector<int>& visible = settings().visible_gpus;
    if (!visible.empty()) gpu = visible.at(static_cast<std::size_t>(gpu));
    cudaUUID_t uuid{};
    std::memcpy(uuid.bytes, &machine, sizeof machine);
    std::memcpy(uuid.bytes + sizeof machine, &gpu, sizeof gpu);
    return uuid;
}

/// An H100, as far as the program asks.
cudaDeviceProp properties_of(int gpu) {
    cudaDeviceProp properties{};
    std::snprintf(properties.name, sizeof properties.name, "Emulated GPU");
    properties.uuid = uuid_of(gpu);
    properties.totalGlobalMem = settings().gpu_memory;
    properties.major = 9;
    properties.minor = 0;
    properties.warpSize = warpSize;
    properties.multiProcessorCount = 132;
    properties.sharedMemPerBlockOptin = settings().shared_memory;
    return properties;
}

}  // namespace

cudaError_t reported(cudaError_t status) {
    if (status != cudaSuccess) last_error = status;
    return status;
}

int current_gpu() {
    return gpu_of_thread;
}

}  // namespace espalier::emulation

using namespace espalier::emulation;

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
    *count = settings().gpus;
    return reported(settings().gpus > 0 ? cudaSuccess : cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int gpu) {
    if (!gpu_exists(gpu)) return reported(cudaErrorInvalidDevice);
    gpu_of_thread = gpu;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int gpu) {
    if (!gpu_exists(gpu)) return reported(cudaErrorInvalidDevice);
    *properties = properties_of(gpu);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
    *free = free_bytes_of_gpu(current_gpu());
    *total = settings().gpu_memory;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* lowest, int* highest) {
    *lowest = 0;
    *highest = -5;
    return cudaSuccess;
}

/// Memory is allocated and freed in the order of streams whatever the pool's attributes say.
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int gpu) {
    *pool = nullptr;
    return reported(gpu_exists(gpu) ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t /*pool*/, cudaMemPoolAttr attribute, void* value) {
    const bool known = attribute == cudaMemPoolAttrReleaseThreshold && value != nullptr;
    return reported(known ? cudaSuccess : cudaErrorNotSupported);
}

cudaError_t cudaGetLastError() {
    return std::exchange(last_error, cudaSuccess);
}

const char* cudaGetErrorName(cudaError_t status) {
    switch (status) {
        case cudaSuccess:
            return "cudaSuccess";
        case cudaErrorInvalidValue:
            return "cudaErrorInvalidValue";
        case cudaErrorMemoryAllocation:
            return "cudaErrorMemoryAllocation";
        case cudaErrorInvalidMemcpyDirection:
            return "cudaErrorInvalidMemcpyDirection";
        case cudaErrorNoDevice:
            return "cudaErrorNoDevice";
        case cudaErrorInvalidDevice:
            return "cudaErrorInvalidDevice";
        case cudaErrorInvalidResourceHandle:
            return "cudaErrorInvalidResourceHandle";
        case cudaErrorNotReady:
            return "cudaErrorNotReady";
        case cudaErrorNotSupported:
            return "cudaErrorNotSupported";
        default:
            return "an error that is not emulated";
    }
}

const char* cudaGetErrorString(cudaError_t status) {
    switch (status) {
        case cudaSuccess:
            return "no error";
        case cudaErrorMemoryAllocation:
            return "out of memory";
        case cudaErrorNoDevice:
            return "no CUDA-capable device is detected";
        case cudaErrorInvalidDevice:
            return "invalid device ordinal";
        default:
            return cudaGetErrorName(status);
    }
}

}  // extern "C"
