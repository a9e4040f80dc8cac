#include "kernels/cuda/attention_backward_kernels.cuh"

namespace espalier::cuda {

ESPALIER_ATTENTION_BACKWARD(bfloat16, 64);
ESPALIER_ATTENTION_BACKWARD(bfloat16, 128);
ESPALIER_ATTENTION_BACKWARD(bfloat16, 256);

}  // namespace espalier::cuda
