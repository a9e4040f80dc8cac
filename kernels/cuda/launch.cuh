#pragma once
/// The only launch syntax of the kernels, and the only file that knows both of their worlds: nvcc for a GPU, and g++
/// with tests/emulation, which executes the same sources on the CPU.

#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/least_shared_bytes.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <tuple>
#include <type_traits>

namespace espalier::cuda {

/// Blocks and threads of a launch; dynamic shared memory in bytes.
struct LaunchShape {
    dim3 grid;
    dim3 block;
    std::size_t shared_bytes = 0;
};

#ifdef ESPALIER_EMULATION

#define ESPALIER_UNROLL

/// Memory that this kernel touches once: it should not push other data out of the caches.
template <typename T>
T load_once(const T* source) {
    return *source;
}
template <typename T>
void store_once(T* destination, const T& value) {
    *destination = value;
}

template <typename T>
T* dynamic_shared() {
    return static_cast<T*>(emulation::dynamic_shared());
}

/// Runs `kernel` in `stream`; `name` goes into error messages.
template <typename... Parameters>
void launch(const char* /*name*/, void (*kernel)(Parameters...), const LaunchShape& shape, cudaStream_t stream,
            std::type_identity_t<Parameters>... arguments) {
    emulation::enqueue(stream, [=, values = std::make_tuple(arguments...)] {
        emulation::run_grid(shape.grid, shape.block, shape.shared_bytes, [&] { std::apply(kernel, values); });
    });
}

#else

#define ESPALIER_UNROLL _Pragma("unroll")
#define ESPALIER_SHARED_ARRAY(T, name, count) __shared__ T name[count]

template <typename T>
__device__ T load_once(const T* source) {
    return __ldcs(source);
}
template <typename T>
__device__ void store_once(T* destination, const T& value) {
    __stcs(destination, value);
}

template <typename T>
__device__ T* dynamic_shared() {
    extern __shared__ __align__(128) unsigned char espalier_dynamic_shared[];
    return reinterpret_cast<T*>(espalier_dynamic_shared);
}

/// Runs `kernel` in `stream`; `name` goes into error messages.
template <typename... Parameters>
void launch(const char* name, void (*kernel)(Parameters...), const LaunchShape& shape, cudaStream_t stream,
            std::type_identity_t<Parameters>... arguments) {
    constexpr std::size_t always_allowed = 48 << 10;
    if (shape.shared_bytes > always_allowed) {
        check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(shape.shared_bytes)),
              name);
    }
    cudaLaunchConfig_t configuration{};
    configuration.gridDim = shape.grid;
    configuration.blockDim = shape.block;
    configuration.dynamicSmemBytes = shape.shared_bytes;
    configuration.stream = stream;
    check(cudaLaunchKernelEx(&configuration, kernel, arguments...), name);
}

#endif

inline unsigned to_unsigned(std::size_t value) {
    return static_cast<unsigned>(value);
}

}  // namespace espalier::cuda
