// What the program finds when it has loaded the module.
#include "kernels/cuda_module.h"

namespace espalier {

extern "C" {
extern const CudaModule espalier_cuda_module;
const CudaModule espalier_cuda_module = {CUDA_MODULE_IDENTITY, cuda::availability, cuda::make_device};
}

}  // namespace espalier
