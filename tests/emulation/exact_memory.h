#pragma once
/// Memory that shows mistakes: exactly as large as asked for, so that address sanitizer's red zone begins right behind
/// it, and filled with 0xff, which is NaN in every floating-point type.

#include <cstddef>
#include <cstdlib>
#include <cstring>

namespace espalier::emulation {

inline void poison(void* memory, std::size_t bytes) {
    std::memset(memory, 0xff, bytes);
}

/// Null when there is none. Freed with std::free.
inline std::byte* allocate_poisoned(std::size_t bytes, std::size_t alignment) {
    void* memory = nullptr;
    if (posix_memalign(&memory, alignment, bytes) != 0) return nullptr;
    poison(memory, bytes);
    return static_cast<std::byte*>(memory);
}

}  // namespace espalier::emulation
