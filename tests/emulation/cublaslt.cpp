// cuBLASLt: descriptions of products, checked when they are used, and the product itself.
#include "tests/emulation/matrix_product.h"
#include "tests/emulation/stream.h"

#include <cublasLt.h>

#include <array>
#include <cstdint>
#include <cstring>

using namespace espalier::emulation;

namespace {

// The library's handles are opaque arrays of its headers: they carry these.
struct Layout {
    cudaDataType_t type;
    std::uint64_t rows, columns;
    std::int64_t leading;
};
struct Operation {
    cublasComputeType_t compute;
    cudaDataType_t scale;
    cublasOperation_t a, b;
};
struct Preference {
    std::uint64_t workspace;
    std::uint32_t reductions;
    std::array<std::uint32_t, 4> alignments;  ///< promised of the addresses of A, B, C and D
};
using Algorithm = Preference;

template <typename State, typename Opaque>
State state_of(const Opaque* opaque) {
    static_assert(sizeof(State) <= sizeof(Opaque));
    State state;
    std::memcpy(&state, opaque, sizeof state);
    return state;
}

template <typename State, typename Opaque>
void keep(const State& state, Opaque* opaque) {
    static_assert(sizeof(State) <= sizeof(Opaque));
    std::memcpy(static_cast<void*>(opaque), &state, sizeof state);
}

/// An attribute's new value, when its size is right.
template <typename T>
bool take(T& member, const void* value, std::size_t size) {
    if (size != sizeof member || value == nullptr) return false;
    std::memcpy(&member, value, size);
    return true;
}

cublasStatus_t valid_if(bool condition) {
    return condition ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

std::size_t bytes_of(cudaDataType_t type) {
    return type == CUDA_R_32F ? 4 : 2;
}

bool knows_types(const Operation& operation, cudaDataType_t factors, cudaDataType_t result) {
    const bool factors_known = factors == CUDA_R_32F || factors == CUDA_R_16F || factors == CUDA_R_16BF;
    const bool tf32 = operation.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    return factors_known && (result == factors || result == CUDA_R_32F) && operation.scale == CUDA_R_32F &&
           (operation.compute == CUBLAS_COMPUTE_32F || (tf32 && factors == CUDA_R_32F));
}

bool fits(const Layout& layout, std::uint64_t rows, std::uint64_t columns) {
    return layout.rows == rows && layout.columns == columns && rows > 0 && columns > 0 &&
           layout.leading >= static_cast<std::int64_t>(rows);
}

/// Result of the shapes: success, a product that is not known, or one that makes no sense.
cublasStatus_t check(const Operation& operation, const Layout& a, const Layout& b, const Layout& c, const Layout& d) {
    if (a.type != b.type || c.type != d.type || !knows_types(operation, a.type, d.type)) {
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    const bool a_turned = operation.a == CUBLAS_OP_T, b_turned = operation.b == CUBLAS_OP_T;
    const std::uint64_t depth = a_turned ? a.rows : a.columns;
    return valid_if(fits(a, a_turned ? depth : d.rows, a_turned ? d.rows : depth) &&
                    fits(b, b_turned ? d.columns : depth, b_turned ? depth : d.columns) && fits(c, d.rows, d.columns) &&
                    fits(d, d.rows, d.columns));
}

ColumnMajor matrix_of(const Layout& layout, const void* data, cublasOperation_t operation = CUBLAS_OP_N) {
    return {data,
            layout.type,
            layout.rows,
            layout.columns,
            static_cast<std::size_t>(layout.leading),
            operation == CUBLAS_OP_T};
}

bool are_aligned(const Algorithm& algorithm, const std::array<const void*, 4>& addresses,
                 const std::array<Layout, 4>& layouts) {
    for (std::size_t i = 0; i < addresses.size(); ++i) {
        const auto address = reinterpret_cast<std::uintptr_t>(addresses[i]);
        if (address % algorithm.alignments[i] != 0 || address % bytes_of(layouts[i].type) != 0) return false;
    }
    return true;
}

}  // namespace

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
    *handle = reinterpret_cast<cublasLtHandle_t>(new char(0));
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    delete reinterpret_cast<char*>(handle);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, std::uint64_t rows,
                                          std::uint64_t columns, std::int64_t leading) {
    *layout = new cublasLtMatrixLayoutOpaque_t{};
    keep(Layout{type, rows, columns, leading}, *layout);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* description, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
    *description = new cublasLtMatmulDescOpaque_t{};
    keep(Operation{compute, scale, CUBLAS_OP_N, CUBLAS_OP_N}, *description);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description) {
    delete description;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t description,
                                              cublasLtMatmulDescAttributes_t attribute, const void* value,
                                              std::size_t size) {
    auto operation = state_of<Operation>(description);
    bool taken = false;
    if (attribute == CUBLASLT_MATMUL_DESC_TRANSA) {
        taken = take(operation.a, value, size);
    } else if (attribute == CUBLASLT_MATMUL_DESC_TRANSB) {
        taken = take(operation.b, value, size);
    } else {
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    keep(operation, description);
    return valid_if(taken);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
    *preference = new cublasLtMatmulPreferenceOpaque_t{};
    keep(Preference{0, CUBLASLT_REDUCTION_SCHEME_MASK, {256, 256, 256, 256}}, *preference);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    std::size_t size) {
    auto state = state_of<Preference>(preference);
    bool taken = false;
    switch (attribute) {
        case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
            taken = take(state.workspace, value, size);
            break;
        case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
            taken = take(state.reductions, value, size);
            break;
        case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
            taken = take(state.alignments[0], value, size);
            break;
        case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
            taken = take(state.alignments[1], value, size);
            break;
        case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
            taken = take(state.alignments[2], value, size);
            break;
        case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
            taken = take(state.alignments[3], value, size);
            break;
        default:
            return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    keep(state, preference);
    return valid_if(taken);
}

/// One algorithm, which remembers what was promised of the addresses.
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t /*handle*/, cublasLtMatmulDesc_t description,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[], int* found) {
    *found = 0;
    if (wanted < 1) return CUBLAS_STATUS_INVALID_VALUE;
    const cublasStatus_t status = check(state_of<Operation>(description), state_of<Layout>(a), state_of<Layout>(b),
                                        state_of<Layout>(c), state_of<Layout>(d));
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    results[0] = {};
    keep(state_of<Preference>(preference), &results[0].algo);
    *found = 1;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t /*handle*/, cublasLtMatmulDesc_t description, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
                              cublasLtMatrixLayout_t c_layout, void* d, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t* algorithm, void* workspace, std::size_t workspace_bytes,
                              cudaStream_t stream) {
    const auto operation = state_of<Operation>(description);
    const std::array<Layout, 4> layouts = {state_of<Layout>(a_layout), state_of<Layout>(b_layout),
                                           state_of<Layout>(c_layout), state_of<Layout>(d_layout)};
    const cublasStatus_t status = check(operation, layouts[0], layouts[1], layouts[2], layouts[3]);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    const auto promised = state_of<Algorithm>(algorithm);
    if (!are_aligned(promised, {a, b, c, d}, layouts) || workspace == nullptr || workspace_bytes < promised.workspace) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    const float product_scale = *static_cast<const float*>(alpha), before_scale = *static_cast<const float*>(beta);
    if (product_scale != 1 || (before_scale != 0 && before_scale != 1)) return CUBLAS_STATUS_NOT_SUPPORTED;
    enqueue(stream, [=] {
        multiply(matrix_of(layouts[0], a, operation.a), matrix_of(layouts[1], b, operation.b),
                 operation.compute == CUBLAS_COMPUTE_32F_FAST_TF32,
                 matrix_of(layouts[2], before_scale == 0 ? nullptr : c), matrix_of(layouts[3], d));
    });
    return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
