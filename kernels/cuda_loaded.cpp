// The CUDA module as a file beside the program. It is loaded once, when somebody asks for a GPU and a driver is there,
// and stays until the program ends.
#include "kernels/cuda_module.h"
#include "src/base/error.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>

namespace espalier {

namespace {

constexpr const char* module_name = "libespalier_cuda.so";

/// Another module than the program's own: tests name the emulated one (tests/emulation), which needs no driver.
const char* named_module() {
    return std::getenv("ESPALIER_CUDA_MODULE");
}

/// The module's file: beside the program, where tests look from their folder, or where `cmake --install` puts it. Empty
/// when this program was built without CUDA.
std::filesystem::path module_file() {
    if (named_module() != nullptr) return named_module();
    std::error_code error;
    const std::filesystem::path folder = std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
    for (const char* const place : {".", "..", CUDA_MODULE_FOLDER}) {
        std::filesystem::path file = folder / place / module_name;
        if (std::filesystem::exists(file, error)) return file;
    }
    return {};
}

struct LoadedModule {
    void* handle = nullptr;
    const CudaModule* module = nullptr;
    std::string why_not;
};

std::string last_error() {
    const char* const text = dlerror();
    return text == nullptr ? "unknown error" : text;
}

LoadedModule load() {
    const std::filesystem::path file = module_file();
    if (file.empty()) {
        return {nullptr, nullptr,
                std::string("built without CUDA (no ") + module_name +
                    " beside the program); configure with -DESPALIER_CUDA=ON on a machine with the CUDA Toolkit"};
    }
#ifndef ESPALIER_EMULATION
    // Without a driver the libraries would only take memory.
    if (named_module() == nullptr && dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL) == nullptr) {
        return {nullptr, nullptr, "built with CUDA; no usable GPU here: no NVIDIA driver (" + last_error() + ")"};
    }
#endif
    void* const handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
        return {
            nullptr, nullptr,
            "built with CUDA, but its module cannot be loaded (" + last_error() +
                "); where that is a library of NVIDIA's, install cuBLAS, cuSOLVER and NCCL, or name their folders in "
                "LD_LIBRARY_PATH"};
    }
    const auto* const module = static_cast<const CudaModule*>(dlsym(handle, "espalier_cuda_module"));
    if (module == nullptr || std::string_view(module->identity) != CUDA_MODULE_IDENTITY) {
        return {nullptr, nullptr, file.string() + " belongs to another build of this program; install both from one"};
    }
    return {handle, module, {}};
}

const LoadedModule& loaded() {
    static const LoadedModule module = load();
    return module;
}

}  // namespace

bool built_with_cuda() {
    return !module_file().empty();
}

CudaAvailability cuda_availability() {
    return loaded().module == nullptr ? CudaAvailability{0, loaded().why_not, {}} : loaded().module->availability();
}

std::unique_ptr<Device> make_cuda_device(const CudaOptions& options) {
    if (loaded().module == nullptr) throw InputError("--device cuda: " + loaded().why_not + "; or use --device cpu");
    return loaded().module->make_device(options);
}

void* find_in_cuda_module(const char* symbol) {
    void* const found = loaded().handle == nullptr ? nullptr : dlsym(loaded().handle, symbol);
    if (found == nullptr) throw BugError(std::string("internal error: the CUDA module has no ") + symbol);
    return found;
}

}  // namespace espalier
