#pragma once
/// Cholesky factors in float64, column-major, the lower triangle. Sums run in the order of the columns.

#include <cstddef>

namespace espalier::emulation {

/// The lower triangle of a [n, n] <- L with L L^T = a. Returns 0, or the order of the first minor that is not positive
/// definite.
int factor_lower(double* a, std::size_t n, std::size_t leading);

/// The lower triangle of a, which is L, <- that of (L L^T)^-1. Returns 0, or 1 + the index of a zero on the diagonal.
int invert_from_lower(double* a, std::size_t n, std::size_t leading);

}  // namespace espalier::emulation
