#pragma once
/// What every call of OpenBLAS needs.

#include <cblas.h>

#include <cstddef>

namespace espalier::cpu {

/// A dimension or stride as OpenBLAS takes it. Shapes of models and panels stay far below 2^31.
inline blasint to_blas(std::size_t value) {
    return static_cast<blasint>(value);
}

}  // namespace espalier::cpu
