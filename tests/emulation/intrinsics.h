#pragma once
/// Functions that nvcc knows without a header.

#include "tests/emulation/execution.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <type_traits>

using std::max;
using std::min;

// The last two parameters of a meeting point are the call's place, for messages.

// ---- block

inline void __syncthreads(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    espalier::emulation::wait_for_block(false, {"__syncthreads", file, line});
}

inline int __syncthreads_count(int predicate, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return espalier::emulation::wait_for_block(predicate != 0, {"__syncthreads_count", file, line});
}

inline int __syncthreads_or(int predicate, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return espalier::emulation::wait_for_block(predicate != 0, {"__syncthreads_or", file, line}) > 0 ? 1 : 0;
}

inline int __syncthreads_and(int predicate, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return espalier::emulation::wait_for_block(predicate == 0, {"__syncthreads_and", file, line}) == 0 ? 1 : 0;
}

// ---- warp

inline void __syncwarp(unsigned mask = 0xffffffffU, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    espalier::emulation::begin_exchange(mask, {"__syncwarp", file, line});
    espalier::emulation::wait_for_lanes();
}

namespace espalier::emulation {

/// The value of lane `source`. A lane outside the mask has none: the caller's own is returned, where a GPU returns
/// anything.
template <typename T>
T value_of_lane(unsigned mask, T value, int source, Place place) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 4 or 8 bytes");
    const T* const values = exchange_in_warp(mask, value, place);
    return (existing_lanes(mask) >> source & 1U) != 0 ? values[source] : value;
}

/// The first lane of the calling lane's group of `width` lanes.
inline int first_lane_of_group(int width) {
    return current_lane() & ~(width - 1);
}

inline unsigned ballot(unsigned mask, bool predicate, Place place) {
    const bool* const votes = exchange_in_warp(mask, predicate, place);
    unsigned result = 0;
    for (unsigned left = existing_lanes(mask); left != 0; left &= left - 1) {
        const int lane = std::countr_zero(left);
        if (votes[lane]) result |= 1U << lane;
    }
    return result;
}

}  // namespace espalier::emulation

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, const char* file = __builtin_FILE(),
              int line = __builtin_LINE()) {
    const int lane = espalier::emulation::first_lane_of_group(width) + (source & (width - 1));
    return espalier::emulation::value_of_lane(mask, value, lane, {"__shfl_sync", file, line});
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, const char* file = __builtin_FILE(),
                  int line = __builtin_LINE()) {
    // As the hardware: a source in a later group of lanes gives the caller's own value, one in an earlier group counts.
    const int own = espalier::emulation::current_lane(), source = own ^ bits;
    const int last = espalier::emulation::first_lane_of_group(width) + width - 1;
    return espalier::emulation::value_of_lane(mask, value, source > last ? own : source,
                                              {"__shfl_xor_sync", file, line});
}

template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32, const char* file = __builtin_FILE(),
                 int line = __builtin_LINE()) {
    const int own = espalier::emulation::current_lane(), source = own - static_cast<int>(distance);
    return espalier::emulation::value_of_lane(mask, value,
                                              source < espalier::emulation::first_lane_of_group(width) ? own : source,
                                              {"__shfl_up_sync", file, line});
}

template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32, const char* file = __builtin_FILE(),
                   int line = __builtin_LINE()) {
    const int own = espalier::emulation::current_lane(), source = own + static_cast<int>(distance);
    const int last = espalier::emulation::first_lane_of_group(width) + width - 1;
    return espalier::emulation::value_of_lane(mask, value, source > last ? own : source,
                                              {"__shfl_down_sync", file, line});
}

inline unsigned __ballot_sync(unsigned mask, int predicate, const char* file = __builtin_FILE(),
                              int line = __builtin_LINE()) {
    return espalier::emulation::ballot(mask, predicate != 0, {"__ballot_sync", file, line});
}

inline int __any_sync(unsigned mask, int predicate, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return espalier::emulation::ballot(mask, predicate != 0, {"__any_sync", file, line}) != 0 ? 1 : 0;
}

inline int __all_sync(unsigned mask, int predicate, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return espalier::emulation::ballot(mask, predicate == 0, {"__all_sync", file, line}) == 0 ? 1 : 0;
}

// ---- memory

inline void __threadfence() {}
inline void __threadfence_block() {}

template <typename T>
T __ldg(const T* address) {
    return *address;
}

template <typename T>
requires(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8)) T
    atomicAdd(T* address, std::type_identity_t<T> value) {
    return std::atomic_ref<T>(*address).fetch_add(value, std::memory_order_relaxed);
}

template <typename T>
requires(std::is_integral_v<T> && (sizeof(T) == 4 || sizeof(T) == 8)) T
    atomicMax(T* address, std::type_identity_t<T> value) {
    const std::atomic_ref<T> target(*address);
    T before = target.load(std::memory_order_relaxed);
    while (before < value && !target.compare_exchange_weak(before, value, std::memory_order_relaxed)) {
    }
    return before;
}

template <typename T>
requires(std::is_integral_v<T> && (sizeof(T) == 4 || sizeof(T) == 8)) T
    atomicOr(T* address, std::type_identity_t<T> value) {
    return std::atomic_ref<T>(*address).fetch_or(value, std::memory_order_relaxed);
}

// ---- bits

inline int __popc(unsigned value) {
    return std::popcount(value);
}
inline int __popcll(unsigned long long value) {
    return std::popcount(value);
}
/// 1 + the index of the lowest bit that is set; 0 for none.
inline int __ffs(int value) {
    return __builtin_ffs(value);
}
inline int __ffsll(long long value) {
    return __builtin_ffsll(value);
}
inline int __clz(int value) {
    return std::countl_zero(static_cast<unsigned>(value));
}
inline int __clzll(long long value) {
    return std::countl_zero(static_cast<unsigned long long>(value));
}
inline unsigned __umulhi(unsigned a, unsigned b) {
    return static_cast<unsigned>(std::uint64_t{a} * b >> 32);
}
inline unsigned __float_as_uint(float value) {
    return std::bit_cast<unsigned>(value);
}
inline float __uint_as_float(unsigned bits) {
    return std::bit_cast<float>(bits);
}
inline int __float_as_int(float value) {
    return std::bit_cast<int>(value);
}
inline float __int_as_float(int bits) {
    return std::bit_cast<float>(bits);
}

// ---- arithmetic: approximations of the GPU are exact here

inline float rsqrtf(float value) {
    return 1.0F / std::sqrt(value);
}
inline float __frsqrt_rn(float value) {
    return static_cast<float>(1.0 / std::sqrt(static_cast<double>(value)));
}
inline float __expf(float value) {
    return std::exp(value);
}
inline float __logf(float value) {
    return std::log(value);
}
inline float __fdividef(float a, float b) {
    return a / b;
}
inline float __fadd_rn(float a, float b) {
    return a + b;
}
inline float __fmul_rn(float a, float b) {
    return a * b;
}
inline float __fmaf_rn(float a, float b, float c) {
    return std::fma(a, b, c);
}

[[noreturn]] inline void __trap() {
    std::abort();
}
