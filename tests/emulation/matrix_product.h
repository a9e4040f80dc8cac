#pragma once
/// Products of column-major matrices with float32 sums. Every sum runs over k from 0 on, so that bits depend on values
/// only: not on a library, its threads, or the shape of other matrices.

#include <library_types.h>

#include <cstddef>

namespace espalier::emulation {

/// Element (i, j) stands at data[j * leading + i].
struct ColumnMajor {
    const void* data = nullptr;
    cudaDataType_t type = CUDA_R_32F;  ///< or CUDA_R_16F, CUDA_R_16BF
    std::size_t rows = 0, columns = 0, leading = 0;
    bool transposed = false;
};

/// result = a b, plus `before` itself (whose memory may be the result's) unless `before` has no data. `narrow_factors`:
/// to TensorFloat-32 first.
void multiply(const ColumnMajor& a, const ColumnMajor& b, bool narrow_factors, const ColumnMajor& before,
              const ColumnMajor& result);

}  // namespace espalier::emulation
