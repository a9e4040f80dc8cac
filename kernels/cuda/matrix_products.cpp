#include "kernels/cuda/matrix_products.h"

#include "kernels/cuda/cuda_error.h"
#include "src/base/error.h"

#include <algorithm>
#include <cstdint>
#include <string>

namespace espalier::cuda {

namespace {

constexpr std::size_t workspace_bytes = std::size_t{32} << 20;  // what cuBLAS recommends for sm_90

void check_cublas(cublasStatus_t status, const char* call) {
    if (status == CUBLAS_STATUS_SUCCESS) return;
    throw ResourceError(std::string(call) + " failed with cuBLAS status " + std::to_string(static_cast<int>(status)));
}

cudaDataType_t type_of(DType dtype) {
    switch (dtype) {
        case DType::f32:
            return CUDA_R_32F;
        case DType::f16:
            return CUDA_R_16F;
        case DType::bf16:
            return CUDA_R_16BF;
        default:
            throw BugError("internal error: matrix products of floating-point tensors");
    }
}

/// Largest power of two that divides the address, at most 16: cuBLAS assumes 256 unless it is told. More would let its
/// choice, and so the bits, depend on where a rank's samples begin.
std::uint32_t alignment_of(const void* address) {
    constexpr std::uintptr_t most = 16;
    const auto value = reinterpret_cast<std::uintptr_t>(address);
    return static_cast<std::uint32_t>(value == 0 ? most : std::min(most, value & (~value + 1)));
}

/// A row-major matrix is cuBLAS's column-major matrix of its transpose: rows and columns as stored.
cublasLtMatrixLayout_t make_layout(DType dtype, std::size_t stored_rows, std::size_t stored_columns,
                                   std::size_t stride) {
    cublasLtMatrixLayout_t layout = nullptr;
    check_cublas(cublasLtMatrixLayoutCreate(&layout, type_of(dtype), stored_columns, stored_rows,
                                            static_cast<std::int64_t>(stride)),
                 "cublasLtMatrixLayoutCreate");
    return layout;
}

template <typename T>
void set_preference(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute, T value) {
    check_cublas(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value),
                 "cublasLtMatmulPreferenceSetAttribute");
}

}  // namespace

/// What cublasLtMatmul needs for one shape. Our product c = a b is its product c^T = b^T a^T.
struct MatrixProducts::Plan {
    cublasLtMatmulDesc_t operation = nullptr;
    cublasLtMatrixLayout_t first = nullptr, second = nullptr, result = nullptr;
    cublasLtMatmulAlgo_t algorithm{};

    Plan() = default;
    Plan(const Plan&) = delete;
    Plan& operator=(const Plan&) = delete;
    ~Plan() {
        for (const cublasLtMatrixLayout_t layout : {first, second, result}) {
            if (layout != nullptr) cublasLtMatrixLayoutDestroy(layout);
        }
        if (operation != nullptr) cublasLtMatmulDescDestroy(operation);
    }
};

MatrixProducts::MatrixProducts(cudaStream_t stream) : stream_(stream) {
    check_cublas(cublasLtCreate(&handle_), "cublasLtCreate");
    check(cudaMalloc(&workspace_, workspace_bytes), "cudaMalloc of cuBLAS's workspace");
}

MatrixProducts::~MatrixProducts() {
    plans_.clear();
    cudaFree(workspace_);
    cublasLtDestroy(handle_);
}

const MatrixProducts::Plan& MatrixProducts::plan_for(const Shape& shape) {
    const auto [place, is_new] = plans_.try_emplace(shape);
    Plan& plan = place->second;
    if (!is_new) return plan;
    const cublasComputeType_t compute = shape.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    check_cublas(cublasLtMatmulDescCreate(&plan.operation, compute, CUDA_R_32F), "cublasLtMatmulDescCreate");
    const auto set_operation = [&](cublasLtMatmulDescAttributes_t attribute, bool transposed) {
        const cublasOperation_t value = transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
        check_cublas(cublasLtMatmulDescSetAttribute(plan.operation, attribute, &value, sizeof value),
                     "cublasLtMatmulDescSetAttribute");
    };
    set_operation(CUBLASLT_MATMUL_DESC_TRANSA, shape.transposed_b);
    set_operation(CUBLASLT_MATMUL_DESC_TRANSB, shape.transposed_a);
    plan.first = make_layout(shape.factors, shape.transposed_b ? shape.n : shape.k,
                             shape.transposed_b ? shape.k : shape.n, shape.stride_b);
    plan.second = make_layout(shape.factors, shape.transposed_a ? shape.k : shape.m,
                              shape.transposed_a ? shape.m : shape.k, shape.stride_a);
    plan.result = make_layout(shape.result, shape.m, shape.n, shape.stride_c);

    cublasLtMatmulPreference_t preference = nullptr;
    check_cublas(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
    set_preference(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{workspace_bytes});
    // Adding parts of a sum with atomics would change bits from run to run.
    set_preference(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                   std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
    set_preference(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                   static_cast<std::uint32_t>(shape.alignment_b));
    set_preference(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                   static_cast<std::uint32_t>(shape.alignment_a));
    set_preference(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                   static_cast<std::uint32_t>(shape.alignment_c));
    set_preference(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
                   static_cast<std::uint32_t>(shape.alignment_c));
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        handle_, plan.operation, plan.first, plan.second, plan.result, plan.result, preference, 1, &found, &count);
    cublasLtMatmulPreferenceDestroy(preference);
    check_cublas(status, "cublasLtMatmulAlgoGetHeuristic");
    if (count == 0) {
        throw ResourceError("cuBLAS knows no algorithm for a product of " + std::to_string(shape.m) + " x " +
                            std::to_string(shape.n) + " x " + std::to_string(shape.k));
    }
    plan.algorithm = found.algo;
    return plan;
}

void MatrixProducts::multiply(std::size_t m, std::size_t n, std::size_t k, const Factor& a, const Factor& b,
                              const std::byte* added, Float32Products products, const Factor& c) {
    require(a.dtype == b.dtype && (c.dtype == a.dtype || c.dtype == DType::f32), "types of a matrix product");
    const Shape shape{m,
                      n,
                      k,
                      a.stride,
                      b.stride,
                      c.stride,
                      alignment_of(a.data),
                      alignment_of(b.data),
                      std::min(alignment_of(c.data), added == nullptr ? alignment_of(c.data) : alignment_of(added)),
                      a.transposed,
                      b.transposed,
                      added != nullptr,
                      a.dtype == DType::f32 && products == Float32Products::tf32,
                      a.dtype,
                      c.dtype};
    const Plan& plan = plan_for(shape);
    const float one = 1, share_of_added = added != nullptr ? 1 : 0;
    void* const result = const_cast<std::byte*>(c.data);
    const void* const addend = added != nullptr ? added : result;
    check_cublas(
        cublasLtMatmul(handle_, plan.operation, &one, b.data, plan.first, a.data, plan.second, &share_of_added, addend,
                       plan.result, result, plan.result, &plan.algorithm, workspace_, workspace_bytes, stream_),
        "cublasLtMatmul");
}

}  // namespace espalier::cuda
