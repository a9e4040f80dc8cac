#include "kernels/cpu/cpu_device.h"

#include "kernels/cpu/parallel.h"
#include "src/base/units.h"

#include <cblas.h>
#include <omp.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <string_view>

namespace espalier {

namespace {

constexpr std::size_t alignment = 64;

/// This file is compiled for every processor, the other kernels for ESPALIER_CPU_ARCHITECTURE.
void check_processor() {
#if defined(__x86_64__) && defined(ESPALIER_CPU_ARCHITECTURE)
    __builtin_cpu_init();
    const bool needs_avx2 = std::string_view(ESPALIER_CPU_ARCHITECTURE) == "x86-64-v3";
    if (needs_avx2 && (__builtin_cpu_supports("avx2") == 0 || __builtin_cpu_supports("fma") == 0)) {
        throw InputError(
            "this build uses AVX2 and FMA instructions, which this processor lacks; configure with "
            "-DESPALIER_CPU_ARCHITECTURE=x86-64");
    }
#endif
}

}  // namespace

CpuDevice::CpuDevice(int threads) : Device(std::numeric_limits<std::size_t>::max()) {
    check_processor();
    const int wanted = threads > 0 ? threads : omp_get_max_threads();
    // Threads come from OpenMP over tiles of fixed shape; a GEMM call itself must not split by the thread count.
    // OpenBLAS built over OpenMP passes its own number on to OpenMP, so ours is set last.
    openblas_set_num_threads(1);
    omp_set_num_threads(wanted);
}

std::string CpuDevice::description() const {
    return "CPU, " + std::to_string(omp_get_max_threads()) + " thread(s), " + openblas_get_config() + ", kernels for " +
           openblas_get_corename();
}

std::string CpuDevice::arithmetic() const {
    return std::string("OpenBLAS ") + openblas_get_corename();
}

std::byte* CpuDevice::allocate(std::size_t bytes) {
    const std::size_t rounded = (bytes + alignment) / alignment * alignment;  // at least one byte
    return static_cast<std::byte*>(std::aligned_alloc(alignment, rounded));
}

void CpuDevice::release(std::byte* memory) noexcept {
    std::free(memory);
}

// Mapped, not from the heap: blocks are large and made by changing threads, and must go back to the system at once.
std::byte* CpuDevice::allocate_host(std::size_t bytes) {
    void* const memory =
        mmap(nullptr, std::max<std::size_t>(1, bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        throw ResourceError("out of memory: no room for " + format_bytes(static_cast<double>(bytes)) +
                            " of host memory");
    }
    return static_cast<std::byte*>(memory);
}

void CpuDevice::release_host(std::byte* memory, std::size_t bytes) noexcept {
    munmap(memory, std::max<std::size_t>(1, bytes));
}

void CpuDevice::copy_from_host(const void* host, TensorView destination) {
    if (destination.bytes() > 0) std::memcpy(destination.data, host, destination.bytes());
}

void CpuDevice::copy_to_host(TensorView source, void* host) {
    if (source.bytes() > 0) std::memcpy(host, source.data, source.bytes());
}

void CpuDevice::copy(TensorView source, TensorView destination) {
    require(source.bytes() == destination.bytes(), "copy between tensors of one size");
    cpu::parallel_chunks(source.bytes(), 4 * cpu::elements_per_chunk, [&](std::size_t begin, std::size_t end) {
        std::memcpy(destination.data + begin, source.data + begin, end - begin);
    });
}

std::uint64_t CpuDevice::start_copy(TensorView source, TensorView destination) {
    copy(source, destination);
    return ++copies_;
}

void CpuDevice::wait_for_copy(std::uint64_t /*copy*/) {}

void CpuDevice::fill_zero(TensorView tensor) {
    cpu::parallel_chunks(tensor.bytes(), 4 * cpu::elements_per_chunk,
                         [&](std::size_t begin, std::size_t end) { std::memset(tensor.data + begin, 0, end - begin); });
}

std::unique_ptr<Device> make_cpu_device(int threads) {
    return std::make_unique<CpuDevice>(threads);
}

}  // namespace espalier
