#pragma once
/// exp in float32 as plain arithmetic that compilers vectorise: libm's function cannot be, without -ffast-math.

#include <bit>
#include <cstdint>

namespace espalier::cpu {

/// e^x within 2 units in the last place for -87.3 < x < 88.3; 0 below; clamped at e^88.3 (2.2e38) above. NaN stays NaN.
inline float exponential(float x) {
    // Cody-Waite: x = n ln 2 + r with |r| <= ln(2)/2; e^r by its Taylor-like minimax polynomial of degree 6.
    const float bounded = x > 88.3F ? 88.3F : x;
    const float magic = 12582912.0F;  // 1.5 * 2^23: adding it rounds to the nearest integer
    const float shifted = bounded * 1.44269504F + magic;
    const float n = shifted - magic;
    const float r = (bounded - n * 0.693359375F) + n * 2.12194440e-4F;
    float p = 1.9875691500e-4F;
    p = p * r + 1.3981999507e-3F;
    p = p * r + 8.3334519073e-3F;
    p = p * r + 4.1665795894e-2F;
    p = p * r + 1.6666665459e-1F;
    p = p * r + 5.0000001201e-1F;
    p = p * (r * r) + r + 1.0F;
    const std::uint32_t exponent = (std::bit_cast<std::uint32_t>(shifted) - 0x4B400000u + 127u) << 23;
    const float result = p * std::bit_cast<float>(exponent);
    return x < -87.3F ? 0.0F : result;
}

}  // namespace espalier::cpu
