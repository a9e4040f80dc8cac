// The CUDA runtime's functions about memory.
#include "tests/emulation/cuda_status.h"
#include "tests/emulation/failure.h"
#include "tests/emulation/gpu_memory.h"
#include "tests/emulation/stream.h"

#include <cstring>
#include <string>
#include <vector>

using namespace espalier::emulation;

namespace {

bool on_host(MemoryKind kind) {
    return kind == MemoryKind::pageable || kind == MemoryKind::page_locked;
}

cudaError_t check_copy(MemoryKind to, MemoryKind from, cudaMemcpyKind kind) {
    if (to == MemoryKind::overrun || from == MemoryKind::overrun) return cudaErrorInvalidValue;
    const auto is = [&](bool host_from, bool host_to) { return on_host(from) == host_from && on_host(to) == host_to; };
    const bool fits = kind == cudaMemcpyDefault || (kind == cudaMemcpyHostToDevice && is(true, false)) ||
                      (kind == cudaMemcpyDeviceToHost && is(false, true)) ||
                      (kind == cudaMemcpyDeviceToDevice && is(false, false));
    return fits ? cudaSuccess : cudaErrorInvalidMemcpyDirection;
}

}  // namespace

extern "C" {

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
    *memory = allocate_on_gpu(current_gpu(), bytes);
    return reported(*memory == nullptr ? cudaErrorMemoryAllocation : cudaSuccess);
}

cudaError_t cudaFree(void* memory) {
    if (memory == nullptr) return cudaSuccess;
    wait_for_all_streams();
    return reported(release_on_gpu(memory) ? cudaSuccess : cudaErrorInvalidValue);
}

/// Where memory is short, what streams are going to free is waited for, as CUDA's pool does.
cudaError_t cudaMallocAsync(void** memory, std::size_t bytes, cudaStream_t stream) {
    if (!stream_exists(stream)) return reported(cudaErrorInvalidResourceHandle);
    *memory = allocate_on_gpu(current_gpu(), bytes);
    if (*memory == nullptr) {
        wait_for_stream(stream);
        *memory = allocate_on_gpu(current_gpu(), bytes);
    }
    return reported(*memory == nullptr ? cudaErrorMemoryAllocation : cudaSuccess);
}

cudaError_t cudaFreeAsync(void* memory, cudaStream_t stream) {
    if (!stream_exists(stream)) return reported(cudaErrorInvalidResourceHandle);
    if (kind_of(memory, 0) != MemoryKind::device) return reported(cudaErrorInvalidValue);
    enqueue(stream, [memory] {
        if (!release_on_gpu(memory)) fail("GPU memory is freed twice");
    });
    return cudaSuccess;
}

cudaError_t cudaHostRegister(void* memory, std::size_t bytes, unsigned /*flags*/) {
    return reported(lock_pages(memory, bytes) ? cudaSuccess : cudaErrorHostMemoryAlreadyRegistered);
}

cudaError_t cudaHostUnregister(void* memory) {
    wait_for_all_streams();
    return reported(unlock_pages(memory) ? cudaSuccess : cudaErrorHostMemoryNotRegistered);
}

/// As CUDA: the call returns when a pageable source has been read, or a pageable destination written; page-locked
/// memory belongs to the copy until the stream has come so far.
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    if (!stream_exists(stream)) return reported(cudaErrorInvalidResourceHandle);
    const MemoryKind to_kind = kind_of(to, bytes), from_kind = kind_of(from, bytes);
    if (const cudaError_t status = check_copy(to_kind, from_kind, kind); status != cudaSuccess) return reported(status);
    if (from_kind == MemoryKind::pageable) {
        const auto* const begin = static_cast<const std::byte*>(from);
        enqueue(stream, [to, copy = std::vector<std::byte>(begin, begin + bytes)] {
            std::memcpy(to, copy.data(), copy.size());
        });
    } else {
        enqueue(stream, [=] { std::memcpy(to, from, bytes); });
    }
    if (to_kind == MemoryKind::pageable) wait_for_stream(stream);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t stream) {
    if (!stream_exists(stream)) return reported(cudaErrorInvalidResourceHandle);
    if (kind_of(memory, bytes) != MemoryKind::device) return reported(cudaErrorInvalidValue);
    enqueue(stream, [=] { std::memset(memory, value, bytes); });
    return cudaSuccess;
}

}  // extern "C"
