#include "kernels/cuda/attention_backward_kernels.cuh"

namespace espalier::cuda {

ESPALIER_ATTENTION_BACKWARD(Tf32, 64);
ESPALIER_ATTENTION_BACKWARD(Tf32, 128);
ESPALIER_ATTENTION_BACKWARD(Tf32, 256);

}  // namespace espalier::cuda
