#include "src/base/dtype.h"

#include "src/base/error.h"

#include <bit>
#include <cstring>

namespace espalier {

std::string_view name_of(DType dtype) {
    switch (dtype) {
        case DType::f32:
            return "float32";
        case DType::f16:
            return "float16";
        case DType::bf16:
            return "bfloat16";
        case DType::u8:
            return "uint8";
        case DType::f64:
            return "float64";
        case DType::u64:
            return "uint64";
    }
    throw BugError("internal error: unknown dtype");
}

DType float_dtype_from_name(std::string_view name) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
        if (name == name_of(dtype)) return dtype;
    }
    throw InputError("dtype '" + std::string(name) + "' is not one of float32, float16, bfloat16");
}

std::uint16_t bf16_from_float(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if (value != value) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);  // quiet, sign and payload kept
    const std::uint32_t round = 0x7fffu + ((bits >> 16) & 1u);
    return static_cast<std::uint16_t>((bits + round) >> 16);
}

float float_from_bf16(std::uint16_t bits) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

std::uint16_t f16_from_float(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000u);
    const std::uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
    if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // rounds to 65536 or beyond
    if (magnitude < 0x38800000u) {
        // Subnormal in float16: adding 0.5 lets the hardware align and round at bit 2^-24.
        const float aligned = std::bit_cast<float>(magnitude) + 0.5f;
        return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(aligned) - 0x3f000000u));
    }
    const std::uint32_t round = 0xfffu + ((magnitude >> 13) & 1u);
    return static_cast<std::uint16_t>(sign | ((magnitude + round - 0x38000000u) >> 13));
}

float float_from_f16(std::uint16_t bits) {
    const std::uint32_t sign = (bits & 0x8000u) << 16;
    const std::uint32_t exponent = (bits >> 10) & 0x1fu;
    const std::uint32_t fraction = bits & 0x3ffu;
    if (exponent == 0) {
        const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
        return std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | sign);
    }
    if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (fraction << 13));
    return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (fraction << 13));
}

namespace {

template <float (*convert)(std::uint16_t)>
void widen16(const std::byte* source, std::size_t count, float* destination) {
    for (std::size_t i = 0; i < count; ++i) {
        std::uint16_t bits;
        std::memcpy(&bits, source + 2 * i, 2);
        destination[i] = convert(bits);
    }
}

template <std::uint16_t (*convert)(float)>
void round16(const float* source, std::size_t count, std::byte* destination) {
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint16_t bits = convert(source[i]);
        std::memcpy(destination + 2 * i, &bits, 2);
    }
}

}  // namespace

void widen_to_float(DType dtype, const std::byte* source, std::size_t count, float* destination) {
    switch (dtype) {
        case DType::f32:
            if (count > 0) std::memcpy(destination, source, 4 * count);
            return;
        case DType::f16:
            widen16<float_from_f16>(source, count, destination);
            return;
        case DType::bf16:
            widen16<float_from_bf16>(source, count, destination);
            return;
        case DType::u8:
        case DType::f64:
        case DType::u64:
            break;
    }
    throw BugError("internal error: widen_to_float of a mask");
}

void round_from_float(DType dtype, const float* source, std::size_t count, std::byte* destination) {
    switch (dtype) {
        case DType::f32:
            if (count > 0) std::memcpy(destination, source, 4 * count);
            return;
        case DType::f16:
            round16<f16_from_float>(source, count, destination);
            return;
        case DType::bf16:
            round16<bf16_from_float>(source, count, destination);
            return;
        case DType::u8:
        case DType::f64:
        case DType::u64:
            break;
    }
    throw BugError("internal error: round_from_float to a mask");
}

}  // namespace espalier
