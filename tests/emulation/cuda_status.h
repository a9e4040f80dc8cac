#pragma once
/// The error of the last call, which cudaGetLastError hands out, and the GPU that a thread uses.

#include <cuda_runtime_api.h>

namespace espalier::emulation {

/// Remembers an error; returns what it was given.
cudaError_t reported(cudaError_t status);

/// Of the calling thread.
int current_gpu();

}  // namespace espalier::emulation
