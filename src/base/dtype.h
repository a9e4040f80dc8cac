#pragma once
/// Element types of weights, activations and masks, and exact conversions between the floating-point ones.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace espalier {

/// Weights, activations and masks; float64 and uint64 hold sums and counts that a device hands back.
enum class DType : std::uint8_t { f32, f16, bf16, u8, f64, u64 };

constexpr std::size_t bytes_of(DType dtype) {
    switch (dtype) {
        case DType::f64:
        case DType::u64:
            return 8;
        case DType::f32:
            return 4;
        case DType::u8:
            return 1;
        default:
            return 2;
    }
}

/// "float32", "float16", "bfloat16", "uint8", "float64", "uint64": the names that options, logs and files use.
std::string_view name_of(DType dtype);

/// Inverse of name_of for the three floating-point types; throws InputError on any other word.
DType float_dtype_from_name(std::string_view name);

/// Rounds to nearest, ties to even; overflow gives infinity; NaN stays NaN.
std::uint16_t bf16_from_float(float value);
std::uint16_t f16_from_float(float value);

/// Exact.
float float_from_bf16(std::uint16_t bits);
float float_from_f16(std::uint16_t bits);

/// Widens `count` elements of type `dtype` at `source` to float32. Exact for every type. `source` needs no alignment.
void widen_to_float(DType dtype, const std::byte* source, std::size_t count, float* destination);

/// Rounds `count` float32 values to `dtype` (nearest, ties to even). `destination` needs no alignment.
void round_from_float(DType dtype, const float* source, std::size_t count, std::byte* destination);

}  // namespace espalier
