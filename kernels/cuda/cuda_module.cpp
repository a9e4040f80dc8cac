// What the program finds when it has loaded the module.
#include "kernels/cuda_module.h"

#include "src/base/version.h"

namespace espalier {

extern "C" {
extern const CudaModule espalier_cuda_module;
const CudaModule espalier_cuda_module = {program_version.data(), cuda::availability, cuda::make_device};
}

}  // namespace espalier
