#pragma once
/// Elements of tensors inside kernels: float32 values of float, half and bfloat16, one or eight at a time.

#include "kernels/cuda/launch.cuh"
#include "src/base/tensor.h"

#include <cstdint>
#include <initializer_list>

namespace espalier::cuda {

using half = __half;
using bfloat16 = __nv_bfloat16;

__device__ inline float to_float(float value) {
    return value;
}
__device__ inline float to_float(half value) {
    return __half2float(value);
}
__device__ inline float to_float(bfloat16 value) {
    return __bfloat162float(value);
}

/// Rounds to nearest, ties to even.
template <typename T>
__device__ T from_float(float value) {
    if constexpr (std::is_same_v<T, half>) {
        return __float2half_rn(value);
    } else if constexpr (std::is_same_v<T, bfloat16>) {
        return __float2bfloat16_rn(value);
    } else {
        return value;
    }
}

/// The memory of a tensor whose type the caller has looked at.
template <typename T>
T* as(TensorView tensor) {
    return reinterpret_cast<T*>(tensor.data);
}

/// Elements that a thread takes at a time where memory is aligned: 16 bytes of a 16-bit type.
inline constexpr int wide = 8;

template <typename T>
struct alignas(16) WideBytes {
    T values[16 / sizeof(T)];
};

/// count = 1, or `wide` from memory aligned to 16 bytes.
template <int count, typename T>
__device__ void load(const T* source, float (&values)[count]) {
    if constexpr (count == 1) {
        values[0] = to_float(*source);
    } else {
        constexpr int in_pack = 16 / sizeof(T);
        ESPALIER_UNROLL
        for (int pack = 0; pack < count / in_pack; ++pack) {
            const auto bytes = reinterpret_cast<const WideBytes<T>*>(source)[pack];
            ESPALIER_UNROLL
            for (int i = 0; i < in_pack; ++i) values[pack * in_pack + i] = to_float(bytes.values[i]);
        }
    }
}

template <int count, typename T>
__device__ void store(T* destination, const float (&values)[count]) {
    if constexpr (count == 1) {
        *destination = from_float<T>(values[0]);
    } else {
        constexpr int in_pack = 16 / sizeof(T);
        ESPALIER_UNROLL
        for (int pack = 0; pack < count / in_pack; ++pack) {
            WideBytes<T> bytes;
            ESPALIER_UNROLL
            for (int i = 0; i < in_pack; ++i) bytes.values[i] = from_float<T>(values[pack * in_pack + i]);
            reinterpret_cast<WideBytes<T>*>(destination)[pack] = bytes;
        }
    }
}

/// float32 that are read once and written once, `count` at a time (load_once).
template <int count>
__device__ void load_once(const float* source, float (&values)[count]) {
    if constexpr (count == 1) {
        values[0] = load_once(source);
    } else {
        ESPALIER_UNROLL
        for (int i = 0; i < count; i += 4) {
            const float4 four = load_once(reinterpret_cast<const float4*>(source + i));
            values[i] = four.x;
            values[i + 1] = four.y;
            values[i + 2] = four.z;
            values[i + 3] = four.w;
        }
    }
}
template <int count>
__device__ void store_once(float* destination, const float (&values)[count]) {
    if constexpr (count == 1) {
        store_once(destination, values[0]);
    } else {
        ESPALIER_UNROLL
        for (int i = 0; i < count; i += 4) {
            store_once(reinterpret_cast<float4*>(destination + i),
                       float4{values[i], values[i + 1], values[i + 2], values[i + 3]});
        }
    }
}

/// The same for masks, one byte an element.
template <int count>
__device__ void load_mask(const std::uint8_t* source, std::uint8_t (&values)[count]) {
    if constexpr (count == 1) {
        values[0] = *source;
    } else {
        struct alignas(count) Bytes {
            std::uint8_t values[count];
        };
        const Bytes bytes = *reinterpret_cast<const Bytes*>(source);
        ESPALIER_UNROLL
        for (int i = 0; i < count; ++i) values[i] = bytes.values[i];
    }
}

template <int count>
__device__ void store_mask(std::uint8_t* destination, const std::uint8_t (&values)[count]) {
    if constexpr (count == 1) {
        *destination = values[0];
    } else {
        struct alignas(count) Bytes {
            std::uint8_t values[count];
        } bytes;
        ESPALIER_UNROLL
        for (int i = 0; i < count; ++i) bytes.values[i] = values[i];
        *reinterpret_cast<Bytes*>(destination) = bytes;
    }
}

/// True when `wide` elements from every one of these addresses on can be taken at a time.
inline bool are_aligned(std::initializer_list<const void*> addresses) {
    for (const void* const address : addresses) {
        if (reinterpret_cast<std::uintptr_t>(address) % 16 != 0) return false;
    }
    return true;
}

/// Calls visitor.template operator()<T>() with T = float, half or bfloat16.
template <typename Visitor>
decltype(auto) with_type(DType dtype, const Visitor& visitor) {
    switch (dtype) {
        case DType::f32:
            return visitor.template operator()<float>();
        case DType::f16:
            return visitor.template operator()<half>();
        case DType::bf16:
            return visitor.template operator()<bfloat16>();
        default:
            throw BugError("internal error: a floating-point tensor of at most 32 bits");
    }
}

}  // namespace espalier::cuda
