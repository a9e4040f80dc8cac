#pragma once
/// The optimisers' rules on a GPU, each in the file of its name.

#include "kernels/optimizer_step.h"

#include <cuda_runtime.h>

namespace espalier::cuda {

void step_rows(cudaStream_t stream, const Rmsprop& rule, const OptimizerStep& step, const OptimizedRows& rows);
void step_rows(cudaStream_t stream, const AdamW& rule, const OptimizerStep& step, const OptimizedRows& rows);

}  // namespace espalier::cuda
