// cuSOLVER's dense Cholesky factors and inverses, of the lower triangle.
#include "tests/emulation/cholesky.h"
#include "tests/emulation/exact_memory.h"
#include "tests/emulation/stream.h"

#include <cusolverDn.h>

using namespace espalier::emulation;

/// What a handle points to.
struct cusolverDnContext {
    cudaStream_t stream = nullptr;
};

namespace {

constexpr int scratch_elements = 64;  // none is needed; that callers provide it shows

using Algorithm = int (*)(double* a, std::size_t n, std::size_t leading);

cusolverStatus_t start(cusolverDnHandle_t handle, cublasFillMode_t triangle, int n, double* a, int leading,
                       double* scratch, int scratch_size, int* info, Algorithm algorithm) {
    if (triangle != CUBLAS_FILL_MODE_LOWER) return CUSOLVER_STATUS_NOT_SUPPORTED;
    if (n < 0 || leading < n || scratch_size < scratch_elements) return CUSOLVER_STATUS_INVALID_VALUE;
    enqueue(handle->stream, [=] {
        poison(scratch, scratch_elements * sizeof(double));
        *info = algorithm(a, static_cast<std::size_t>(n), static_cast<std::size_t>(leading));
    });
    return CUSOLVER_STATUS_SUCCESS;
}

}  // namespace

extern "C" {

cusolverStatus_t cusolverDnCreate(cusolverDnHandle_t* handle) {
    *handle = new cusolverDnContext;
    return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnDestroy(cusolverDnHandle_t handle) {
    delete handle;
    return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnSetStream(cusolverDnHandle_t handle, cudaStream_t stream) {
    handle->stream = stream;
    return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnDpotrf_bufferSize(cusolverDnHandle_t /*handle*/, cublasFillMode_t /*triangle*/, int /*n*/,
                                             double* /*a*/, int /*leading*/, int* elements) {
    *elements = scratch_elements;
    return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnDpotri_bufferSize(cusolverDnHandle_t /*handle*/, cublasFillMode_t /*triangle*/, int /*n*/,
                                             double* /*a*/, int /*leading*/, int* elements) {
    *elements = scratch_elements;
    return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnDpotrf(cusolverDnHandle_t handle, cublasFillMode_t triangle, int n, double* a, int leading,
                                  double* scratch, int scratch_size, int* info) {
    return start(handle, triangle, n, a, leading, scratch, scratch_size, info, factor_lower);
}

cusolverStatus_t cusolverDnDpotri(cusolverDnHandle_t handle, cublasFillMode_t triangle, int n, double* a, int leading,
                                  double* scratch, int scratch_size, int* info) {
    return start(handle, triangle, n, a, leading, scratch, scratch_size, info, invert_from_lower);
}

}  // extern "C"
