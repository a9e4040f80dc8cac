#pragma once
/// Flops and bytes of operations, for modelled devices.

#include "src/base/tensor.h"

#include <cstddef>

namespace espalier {

inline double product_flops(std::size_t m, std::size_t n, std::size_t k) {
    return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
}

/// Multiplications of one causal T x T product over all heads of q.
inline double lower_triangle_flops(TensorView q) {
    return 2.0 * static_cast<double>(q.size()) * static_cast<double>(q.rows + 1) / 2.0;
}

template <typename... Views>
std::size_t bytes_of_all(const Views&... views) {
    return (views.bytes() + ... + std::size_t{0});
}

}  // namespace espalier
