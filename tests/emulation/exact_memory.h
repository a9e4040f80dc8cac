#pragma once
/// Memory that shows mistakes: filled with 0xff, which is NaN in every floating-point type, and exactly as large as
/// asked for, so that address sanitizer's red zone begins right behind it. Without the sanitizer a guard zone lies
/// there.

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>

namespace espalier::emulation {

#ifdef __SANITIZE_ADDRESS__
inline constexpr std::size_t guard_bytes = 0;
#else
inline constexpr std::size_t guard_bytes = 64;
#endif
inline constexpr std::byte guard_value{0xa5};

inline void poison(void* memory, std::size_t bytes) {
    std::memset(memory, 0xff, bytes);
}

/// Null when there is none. Freed with std::free.
inline std::byte* allocate_poisoned(std::size_t bytes, std::size_t alignment) {
    void* memory = nullptr;
    if (posix_memalign(&memory, alignment, bytes + guard_bytes) != 0) return nullptr;
    poison(memory, bytes);
    std::memset(static_cast<std::byte*>(memory) + bytes, std::to_integer<int>(guard_value), guard_bytes);
    return static_cast<std::byte*>(memory);
}

/// False when something was written behind memory of allocate_poisoned.
inline bool guard_is_intact(const std::byte* memory, std::size_t bytes) {
    return std::all_of(memory + bytes, memory + bytes + guard_bytes, [](std::byte b) { return b == guard_value; });
}

}  // namespace espalier::emulation
