#pragma once
/// Element types of weights, activations and masks, and exact conversions between the floating-point ones.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace espalier {

enum class DType : std::uint8_t { f32, f16, bf16, u8 };

constexpr std::size_t bytes_of(DType dtype) {
    return dtype == DType::f32 ? 4 : dtype == DType::u8 ? 1 : 2;
}

/// "float32", "float16", "bfloat16", "uint8": the names that options, logs and files use.
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
