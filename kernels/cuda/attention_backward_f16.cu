#include "kernels/cuda/attention_backward_kernels.cuh"

namespace espalier::cuda {

ESPALIER_ATTENTION_BACKWARD(half, 64);
ESPALIER_ATTENTION_BACKWARD(half, 128);
ESPALIER_ATTENTION_BACKWARD(half, 256);

}  // namespace espalier::cuda
