#include "kernels/cuda/attention_backward_kernels.cuh"

namespace espalier::cuda {

ESPALIER_ATTENTION_BACKWARD(bfloat16);

}  // namespace espalier::cuda
