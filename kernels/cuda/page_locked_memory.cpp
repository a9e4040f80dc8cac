#include "kernels/cuda/page_locked_memory.h"

#include "src/base/error.h"
#include "src/base/units.h"

#include <cuda_runtime.h>
#include <omp.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace espalier {

namespace {

constexpr std::size_t page = 4096, large_page = std::size_t{2} << 20;
constexpr int touching_threads = 4;  // the thread that reads the next block allocates beside those that compute

void touch(std::byte* memory, std::size_t bytes) {
#pragma omp parallel for num_threads(std::min(touching_threads, omp_get_max_threads())) if (bytes >= large_page)
    for (std::size_t offset = 0; offset < bytes; offset += page) memory[offset] = std::byte{0};
}

[[noreturn]] void refuse(std::size_t bytes, const char* reason) {
    throw ResourceError("out of memory: no room for " + format_bytes(static_cast<double>(bytes)) +
                        " of page-locked host memory (" + reason + "); raise the job's memory or `ulimit -l`");
}

}  // namespace

PageLockedMemory::PageLockedMemory(std::size_t bytes) {
    bytes = std::max<std::size_t>(1, bytes);
    void* memory = nullptr;
    // Whole pages: two locked ranges must not share one.
    if (posix_memalign(&memory, bytes >= large_page ? large_page : page, bytes) != 0) refuse(bytes, "out of memory");
    if (bytes >= large_page) madvise(memory, bytes, MADV_HUGEPAGE);  // where the system has none, small ones serve
    touch(static_cast<std::byte*>(memory), bytes);
    if (const cudaError_t status = cudaHostRegister(memory, bytes, cudaHostRegisterPortable); status != cudaSuccess) {
        cudaGetLastError();
        std::free(memory);
        refuse(bytes, cudaGetErrorString(status));
    }
    data_ = static_cast<std::byte*>(memory);
}

PageLockedMemory::PageLockedMemory(PageLockedMemory&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}

PageLockedMemory::~PageLockedMemory() {
    if (data_ == nullptr) return;
    cudaHostUnregister(data_);
    std::free(data_);
}

}  // namespace espalier
