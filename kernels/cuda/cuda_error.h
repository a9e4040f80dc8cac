#pragma once
/// CUDA's error codes as exceptions.

#include <cuda_runtime_api.h>

namespace espalier::cuda {

/// Throws ResourceError with CUDA's own words and the call unless `status` is success.
void check(cudaError_t status, const char* call);

/// The same for a kernel that has just been launched.
void check_launch(const char* kernel);

}  // namespace espalier::cuda
