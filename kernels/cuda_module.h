#pragma once
/// The part of the program that needs NVIDIA's libraries is a module, libespalier_cuda.so, which is loaded when a GPU
/// is to be used. So the program starts where those libraries are not installed, and on a CPU does not keep 200 MiB of
/// them in memory. Emulated builds with sanitizers link the module's sources instead.

#include "kernels/device.h"

#include <memory>

namespace espalier {

/// What the module offers, under the name `espalier_cuda_module`.
struct CudaModule {
    const char* identity;  ///< of the build that it belongs to
    CudaAvailability (*availability)();
    std::unique_ptr<Device> (*make_device)(const CudaOptions& options);
};

/// Another symbol of the module, once a device of it exists. Throws BugError when there is none of that name.
void* find_in_cuda_module(const char* symbol);

namespace cuda {
/// As cuda_availability and make_cuda_device (device.h), inside of the module.
CudaAvailability availability();
std::unique_ptr<Device> make_device(const CudaOptions& options);
}  // namespace cuda

}  // namespace espalier
