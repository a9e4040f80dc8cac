#include "kernels/cuda/cuda_device.h"

#include "kernels/cuda/cuda_error.h"
#include "src/base/error.h"
#include "src/base/units.h"

#include <nvtx3/nvToolsExt.h>
#include <sched.h>

#include <algorithm>

namespace espalier {

namespace {

using cuda::check;

std::string readable(std::size_t bytes) {
    return format_bytes(static_cast<double>(bytes));
}

/// The GPU that this thread's calls go to from now on.
int select_gpu(const CudaOptions& options) {
    const CudaAvailability found = cuda::availability();
    if (options.gpu >= found.gpus) {
        throw InputError("--device cuda: GPU " + std::to_string(options.gpu) + " is not there (" + found.explanation +
                         "); use --device cpu");
    }
    check(cudaSetDevice(options.gpu), "cudaSetDevice");
    return options.gpu;
}

}  // namespace

CudaDevice::CudaDevice(const CudaOptions& options) : Device(0), gpu_(select_gpu(options)) {
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, gpu_), "cudaGetDeviceProperties");
    shared_bytes_of_block_ = properties.sharedMemPerBlockOptin;
    multiprocessors_ = static_cast<std::size_t>(std::max(1, properties.multiProcessorCount));
    products_ = std::make_unique<cuda::MatrixProducts>(stream_);
    std::size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    const std::size_t budget = options.memory_budget == 0 ? free - reserved_gpu_bytes(free) : options.memory_budget;
    if (budget > free) {
        throw ResourceError("--gpu-memory " + readable(budget) + ": only " + readable(free) + " of " + readable(total) +
                            " are free on GPU " + std::to_string(gpu_));
    }
    cudaMemPool_t pool = nullptr;
    check(cudaDeviceGetDefaultMemPool(&pool, gpu_), "cudaDeviceGetDefaultMemPool");
    set_memory_budget(budget);
    std::uint64_t kept = budget;
    check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &kept), "cudaMemPoolSetAttribute");
}

CudaDevice::~CudaDevice() {
    // Nothing may go while it is in use.
    cudaStreamSynchronize(stream_);
    cudaStreamSynchronize(copy_stream_);
}

void CudaDevice::use_gpu() const {
    check(cudaSetDevice(gpu_), "cudaSetDevice");
}

std::string CudaDevice::description() const {
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, gpu_), "cudaGetDeviceProperties");
    return "GPU " + std::to_string(gpu_) + ", " + properties.name + ", " + readable(memory().budget()) + " for tensors";
}

std::string CudaDevice::arithmetic() const {
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, gpu_), "cudaGetDeviceProperties");
    return properties.name;
}

int CudaDevice::add_wait_poll(std::function<void()> poll) {
    wait_polls_[next_wait_poll_] = std::move(poll);
    return next_wait_poll_++;
}

void CudaDevice::synchronize() {
    wait_for_copy(copies_);
    reached_.record(stream_);
    while (!reached_.has_passed("a GPU operation")) {
        for (const auto& [id, poll] : wait_polls_) poll();
        sched_yield();
    }
}

std::byte* CudaDevice::allocate(std::size_t bytes) {
    void* memory = nullptr;
    const cudaError_t status = cudaMallocAsync(&memory, std::max<std::size_t>(1, bytes), stream_);
    if (status == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        return nullptr;
    }
    check(status, "cudaMallocAsync");
    return static_cast<std::byte*>(memory);
}

void CudaDevice::release(std::byte* memory) noexcept {
    cudaFreeAsync(memory, stream_);
}

std::byte* CudaDevice::allocate_host(std::size_t bytes) {
    const std::lock_guard lock(host_mutex_);
    if (const auto kept = free_host_.find(bytes); kept != free_host_.end()) {
        std::byte* const memory = kept->second;
        free_host_.erase(kept);
        return memory;
    }
    use_gpu();  // the calling thread may be a new one
    return host_memory_.emplace_back(bytes).data();
}

void CudaDevice::release_host(std::byte* memory, std::size_t bytes) noexcept {
    const std::lock_guard lock(host_mutex_);
    free_host_.emplace(bytes, memory);
}

void CudaDevice::copy_from_host(const void* host, TensorView destination) {
    if (destination.bytes() == 0) return;
    check(cudaMemcpyAsync(destination.data, host, destination.bytes(), cudaMemcpyHostToDevice, stream_),
          "cudaMemcpyAsync to the GPU");
    synchronize();
}

void CudaDevice::copy_to_host(TensorView source, void* host) {
    synchronize();  // a copy to pageable memory would wait without looking after the other ranks
    if (source.bytes() == 0) return;
    check(cudaMemcpyAsync(host, source.data, source.bytes(), cudaMemcpyDeviceToHost, stream_),
          "cudaMemcpyAsync from the GPU");
    synchronize();
}

void CudaDevice::copy(TensorView source, TensorView destination) {
    require(source.bytes() == destination.bytes(), "copy between tensors of one size");
    if (source.bytes() == 0) return;
    check(cudaMemcpyAsync(destination.data, source.data, source.bytes(), cudaMemcpyDefault, stream_),
          "cudaMemcpyAsync");
}

void CudaDevice::begin_range(const char* name) {
    nvtxRangePushA(name);
}

void CudaDevice::end_range() noexcept {
    nvtxRangePop();
}

std::uint64_t CudaDevice::start_copy(TensorView source, TensorView destination) {
    require(source.bytes() == destination.bytes(), "copy between tensors of one size");
    may_copy_.record(stream_);
    may_copy_.delay(copy_stream_);
    if (source.bytes() > 0) {
        check(cudaMemcpyAsync(destination.data, source.data, source.bytes(), cudaMemcpyDefault, copy_stream_),
              "cudaMemcpyAsync");
    }
    ++copies_;
    copied_[copies_ % copied_.size()].record(copy_stream_);
    return copies_;
}

void CudaDevice::wait_for_copy(std::uint64_t copy) {
    if (copy == 0) return;
    // An event that a later copy has taken over stands for that one: to wait longer is not wrong.
    copied_[copy % copied_.size()].delay(stream_);
}

void CudaDevice::fill_zero(TensorView tensor) {
    if (tensor.bytes() == 0) return;
    check(cudaMemsetAsync(tensor.data, 0, tensor.bytes(), stream_), "cudaMemsetAsync");
}

std::unique_ptr<Device> cuda::make_device(const CudaOptions& options) {
    return std::make_unique<CudaDevice>(options);
}

}  // namespace espalier
