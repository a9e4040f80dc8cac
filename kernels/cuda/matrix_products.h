#pragma once
/// Row-major matrix products through cuBLASLt. The algorithm of each shape is chosen once, without atomic reductions,
/// so that its bits repeat.

#include "kernels/device.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <compare>
#include <cstddef>
#include <map>

namespace espalier::cuda {

/// A row-major matrix in device memory as a factor or result.
struct Factor {
    const std::byte* data = nullptr;
    DType dtype = DType::f32;
    std::size_t stride = 0;  ///< elements from row to row
    bool transposed = false;
};

class MatrixProducts {
  public:
    /// Products run in `stream`, on the current GPU. Throws ResourceError.
    explicit MatrixProducts(cudaStream_t stream);
    MatrixProducts(const MatrixProducts&) = delete;
    MatrixProducts& operator=(const MatrixProducts&) = delete;
    ~MatrixProducts();

    /// c [m, n] = op(a) [m, k] op(b) [k, n], plus `added` unless it is null, a matrix like c that may be c itself. a
    /// and b have one type; c has it too, or is float32. Sums are float32.
    void multiply(std::size_t m, std::size_t n, std::size_t k, const Factor& a, const Factor& b, const std::byte* added,
                  Float32Products products, const Factor& c);

  private:
    /// Everything that the choice of an algorithm depends on.
    struct Shape {
        std::size_t m, n, k, stride_a, stride_b, stride_c, alignment_a, alignment_b, alignment_c;
        bool transposed_a, transposed_b, accumulate, tf32;
        DType factors, result;
        auto operator<=>(const Shape&) const = default;
    };
    struct Plan;
    const Plan& plan_for(const Shape& shape);

    cudaStream_t stream_;
    cublasLtHandle_t handle_ = nullptr;
    void* workspace_ = nullptr;
    std::map<Shape, Plan> plans_;
};

}  // namespace espalier::cuda
