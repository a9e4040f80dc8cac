// Compiled instead of kernels/cuda when the program is built without CUDA.
#include "kernels/device.h"

namespace espalier {

namespace {
constexpr const char* explanation =
    "built without CUDA; configure with -DESPALIER_CUDA=ON on a machine with the CUDA Toolkit";
}

CudaAvailability cuda_availability() {
    return {false, 0, explanation, {}};
}

std::unique_ptr<Device> make_cuda_device(const CudaOptions& /*options*/) {
    throw InputError(std::string("--device cuda: this program was ") + explanation + "; or use --device cpu");
}

}  // namespace espalier
