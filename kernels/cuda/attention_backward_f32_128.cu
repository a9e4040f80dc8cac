#include "kernels/cuda/attention_backward_kernels.cuh"

namespace espalier::cuda {

ESPALIER_ATTENTION_BACKWARD(Tf32Split, 128);

}  // namespace espalier::cuda
