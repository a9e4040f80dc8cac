#pragma once
/// Which of its kernels OpenBLAS takes. A release does not know processors made after it and falls back to kernels of
/// 2004 on them: five times slower (0.3.21 on an Emerald Rapids: 19 instead of 103 GFLOP/s).

#include <string>

namespace espalier {

/// What OPENBLAS_CORETYPE should say when OpenBLAS has taken kernels far older than this processor; else empty. It
/// reads the variable when the program starts.
std::string better_blas_core();

}  // namespace espalier
