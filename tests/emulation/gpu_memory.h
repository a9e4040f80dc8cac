#pragma once
/// Memory of the emulated GPUs, made of the heap, and page-locked memory of the host: blocks known by address.

#include <cstddef>

namespace espalier::emulation {

enum class MemoryKind {
    pageable,     ///< of the host, not allocated here
    page_locked,  ///< of the host
    device,
    overrun,  ///< begins in a block and ends behind it
};

/// A poisoned block of GPU `gpu`; null when it has no room.
void* allocate_on_gpu(int gpu, std::size_t bytes);
/// False when no block of a GPU begins there.
bool release_on_gpu(void* memory);
std::size_t free_bytes_of_gpu(int gpu);

/// Memory of the host, which the program locks and unlocks; false when it overlaps locked memory, or is not locked.
bool lock_pages(void* memory, std::size_t bytes);
bool unlock_pages(void* memory);

/// Of `bytes` bytes from `memory` on.
MemoryKind kind_of(const void* memory, std::size_t bytes);

/// While one exists, GPU memory may be touched: work of a stream runs. At other times address sanitizer reports it,
/// and at the end of the outermost, memory that was written past its end ends the program.
class DeviceAccess {
  public:
    DeviceAccess();
    DeviceAccess(const DeviceAccess&) = delete;
    DeviceAccess& operator=(const DeviceAccess&) = delete;
    ~DeviceAccess();
};

}  // namespace espalier::emulation
