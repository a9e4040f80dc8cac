#include "tests/emulation/gpu_memory.h"

#include "tests/emulation/exact_memory.h"
#include "tests/emulation/failure.h"
#include "tests/emulation/settings.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <mutex>
#include <string>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace espalier::emulation {

namespace {

constexpr std::size_t alignment = 256;  // what cudaMalloc promises
constexpr int the_host = -1;

struct Block {
    std::size_t bytes;
    int gpu;  ///< or the_host, whose memory is the program's own and has no guard
};

struct Memory {
    std::recursive_mutex mutex;
    std::map<const std::byte*, Block> blocks;
    std::map<int, std::size_t> used;  ///< by GPU
    int accesses = 0;
};

/// Never destroyed: other objects of the program may free memory at its very end.
Memory& memory() {
    static Memory& the_memory = *new Memory;
    return the_memory;
}

void hide([[maybe_unused]] const std::byte* begin, [[maybe_unused]] std::size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
    __asan_poison_memory_region(begin, bytes);
#endif
}

void show([[maybe_unused]] const std::byte* begin, [[maybe_unused]] std::size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
    __asan_unpoison_memory_region(begin, bytes);
#endif
}

void check_guard(const std::byte* begin, const Block& block) {
    if (block.gpu == the_host || guard_is_intact(begin, block.bytes)) return;
    fail("something wrote behind the end of " + std::to_string(block.bytes) + " bytes of GPU memory");
}

void* allocate(int gpu, std::size_t bytes) {
    const std::lock_guard lock(memory().mutex);
    std::byte* const begin = allocate_poisoned(bytes, alignment);
    if (begin == nullptr) return nullptr;
    memory().blocks[begin] = {bytes, gpu};
    memory().used[gpu] += bytes;
    if (memory().accesses == 0) hide(begin, bytes);
    return begin;
}

}  // namespace

void* allocate_on_gpu(int gpu, std::size_t bytes) {
    return bytes <= free_bytes_of_gpu(gpu) ? allocate(gpu, bytes) : nullptr;
}

bool release_on_gpu(void* address) {
    const std::lock_guard lock(memory().mutex);
    const auto place = memory().blocks.find(static_cast<const std::byte*>(address));
    if (place == memory().blocks.end() || place->second.gpu == the_host) return false;
    show(place->first, place->second.bytes);
    check_guard(place->first, place->second);
    memory().used[place->second.gpu] -= place->second.bytes;
    memory().blocks.erase(place);
    std::free(address);
    return true;
}

std::size_t free_bytes_of_gpu(int gpu) {
    const std::lock_guard lock(memory().mutex);
    return settings().gpu_memory - std::min(settings().gpu_memory, memory().used[gpu]);
}

bool lock_pages(void* address, std::size_t bytes) {
    const std::lock_guard lock(memory().mutex);
    const auto* const begin = static_cast<const std::byte*>(address);
    const auto after = memory().blocks.lower_bound(begin);
    if (after != memory().blocks.end() && after->first < begin + bytes) return false;
    if (kind_of(address, 1) != MemoryKind::pageable) return false;
    memory().blocks[begin] = {bytes, the_host};
    return true;
}

bool unlock_pages(void* address) {
    const std::lock_guard lock(memory().mutex);
    const auto place = memory().blocks.find(static_cast<const std::byte*>(address));
    if (place == memory().blocks.end() || place->second.gpu != the_host) return false;
    memory().blocks.erase(place);
    return true;
}

MemoryKind kind_of(const void* address, std::size_t bytes) {
    const std::lock_guard lock(memory().mutex);
    const auto* const begin = static_cast<const std::byte*>(address);
    auto place = memory().blocks.upper_bound(begin);
    if (place == memory().blocks.begin()) return MemoryKind::pageable;
    --place;
    const auto offset = static_cast<std::size_t>(begin - place->first);
    if (offset >= std::max<std::size_t>(1, place->second.bytes)) return MemoryKind::pageable;
    if (bytes > place->second.bytes - offset) return MemoryKind::overrun;
    return place->second.gpu == the_host ? MemoryKind::page_locked : MemoryKind::device;
}

DeviceAccess::DeviceAccess() {
    memory().mutex.lock();
    if (memory().accesses++ > 0) return;
    for (const auto& [begin, block] : memory().blocks) show(begin, block.bytes);
}

DeviceAccess::~DeviceAccess() {
    if (--memory().accesses == 0) {
        for (const auto& [begin, block] : memory().blocks) {
            check_guard(begin, block);
            if (block.gpu != the_host) hide(begin, block.bytes);
        }
    }
    memory().mutex.unlock();
}

}  // namespace espalier::emulation
