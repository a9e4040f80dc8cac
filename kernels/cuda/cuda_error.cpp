#include "kernels/cuda/cuda_error.h"

#include "src/base/error.h"

#include <string>

namespace espalier::cuda {

void check(cudaError_t status, const char* call) {
    if (status == cudaSuccess) return;
    const std::string sentence =
        std::string(call) + " failed: " + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) + ")";
    cudaGetLastError();  // an error that does not break the device is not reported a second time
    throw ResourceError(sentence);
}

void check_launch(const char* kernel) {
    check(cudaGetLastError(), kernel);
}

}  // namespace espalier::cuda
