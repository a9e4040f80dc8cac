// Streams, events and memory: what a program may rely on, and what lazy streams show that it relies on in vain.
#include "tests/emulation/emulation_test.h"

#include <cstring>

namespace espalier::emulation {
namespace {

__global__ void fill_kernel(int value, int* array) {
    array[threadIdx.x] = value;
}
__global__ void copy_kernel(const int* from, int* to) {
    to[threadIdx.x] = from[threadIdx.x];
}

class Event {
  public:
    Event() { EXPECT_EQ(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), cudaSuccess); }
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;
    ~Event() { EXPECT_EQ(cudaEventDestroy(event_), cudaSuccess); }
    operator cudaEvent_t() const { return event_; }  // NOLINT(google-explicit-constructor): it is one

  private:
    cudaEvent_t event_ = nullptr;
};

/// Fills an array in one stream and copies it in another, which waits for the first or forgets to.
std::vector<int> copy_across_streams(bool wait) {
    const GpuArray<int> from(std::vector<int>(4, 1)), to(4);
    const TestStream first, second;
    cuda::launch("fill", fill_kernel, {1, 4}, first, 2, from.data());
    if (wait) {
        const Event filled;
        EXPECT_EQ(cudaEventRecord(filled, first), cudaSuccess);
        EXPECT_EQ(cudaStreamWaitEvent(second, filled, 0), cudaSuccess);
    }
    cuda::launch("copy", copy_kernel, {1, 4}, second, from.data(), to.data());
    return to.read(second);
}

TEST(Streams, LazyStreamsShowAMissingWait) {
    SettingsForAWhile settings;
    const std::vector<int> filled(4, 2), stale(4, 1);
    EXPECT_EQ(copy_across_streams(true), filled);
    EXPECT_EQ(copy_across_streams(false), filled);  // eager: by luck
    settings->lazy_streams = true;
    EXPECT_EQ(copy_across_streams(true), filled);
    EXPECT_EQ(copy_across_streams(false), stale);
}

TEST(Streams, EventsPassInTheirTurn) {
    SettingsForAWhile settings;
    settings->lazy_streams = true;
    const GpuArray<int> array(std::vector<int>(4, 0));
    const TestStream stream;
    const Event event;
    EXPECT_EQ(cudaEventQuery(event), cudaSuccess) << "of an event that was never recorded";
    cuda::launch("fill", fill_kernel, {1, 4}, stream, 1, array.data());
    EXPECT_EQ(cudaEventRecord(event, stream), cudaSuccess);
    cuda::launch("fill", fill_kernel, {1, 4}, stream, 2, array.data());
    EXPECT_EQ(cudaEventQuery(event), cudaSuccess) << "a query lets the work before it run";
    EXPECT_EQ(array.read(), std::vector<int>(4, 1)) << "but not what follows";
}

TEST(Streams, PageLockedMemoryBelongsToACopyUntilTheStreamHasComeSoFar) {
    SettingsForAWhile settings;
    settings->lazy_streams = true;
    const GpuArray<int> array(std::vector<int>(1, 1));
    const TestStream stream;
    std::vector<int> locked(1);
    int* const host = locked.data();
    ASSERT_EQ(cudaHostRegister(host, sizeof(int), cudaHostRegisterPortable), cudaSuccess);
    EXPECT_EQ(cudaHostRegister(host, sizeof(int), cudaHostRegisterPortable), cudaErrorHostMemoryAlreadyRegistered);
    *host = 5;
    EXPECT_EQ(cudaMemcpyAsync(array.data(), host, sizeof(int), cudaMemcpyHostToDevice, stream), cudaSuccess);
    *host = 6;  // too early
    stream.synchronize();
    EXPECT_EQ(array.read()[0], 6);
    int pageable = 7;
    EXPECT_EQ(cudaMemcpyAsync(array.data(), &pageable, sizeof(int), cudaMemcpyHostToDevice, stream), cudaSuccess);
    pageable = 8;
    stream.synchronize();
    EXPECT_EQ(array.read()[0], 7);
    EXPECT_EQ(cudaHostUnregister(host), cudaSuccess);
    EXPECT_EQ(cudaHostUnregister(host), cudaErrorHostMemoryNotRegistered);
}

TEST(Memory, CopiesAreChecked) {
    const GpuArray<int> array(std::vector<int>(4, 0));
    const TestStream stream;
    std::vector<int> host(8);
    const auto copy = [&](void* to, const void* from, std::size_t count, cudaMemcpyKind kind) {
        return cudaMemcpyAsync(to, from, count * sizeof(int), kind, stream);
    };
    EXPECT_EQ(copy(array.data(), host.data(), 4, cudaMemcpyDefault), cudaSuccess);
    EXPECT_EQ(copy(array.data(), host.data(), 5, cudaMemcpyDefault), cudaErrorInvalidValue);
    EXPECT_EQ(copy(host.data(), array.data() + 1, 4, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
    EXPECT_EQ(copy(host.data(), array.data(), 4, cudaMemcpyHostToDevice), cudaErrorInvalidMemcpyDirection);
    EXPECT_EQ(cudaMemsetAsync(array.data(), 0, 17, stream), cudaErrorInvalidValue);
    EXPECT_EQ(cudaMemsetAsync(host.data(), 0, 4, stream), cudaErrorInvalidValue);
    EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

std::size_t free_bytes() {
    std::size_t free = 0, total = 0;
    EXPECT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
    return free;
}

TEST(Memory, IsCountedAndComesBackInTheOrderOfTheStream) {
    SettingsForAWhile settings;
    settings->lazy_streams = true;
    settings->gpu_memory = 1000;
    const TestStream stream;
    void* first = nullptr;
    void* second = nullptr;
    ASSERT_EQ(cudaMallocAsync(&first, 800, stream), cudaSuccess);
    EXPECT_EQ(free_bytes(), 200U);
    EXPECT_EQ(cudaMalloc(&second, 201), cudaErrorMemoryAllocation);
    EXPECT_EQ(cudaFreeAsync(first, stream), cudaSuccess);
    EXPECT_EQ(free_bytes(), 200U) << "not freed before its turn";
    ASSERT_EQ(cudaMallocAsync(&second, 900, stream), cudaSuccess) << "waits for what is going to be freed";
    EXPECT_EQ(cudaFreeAsync(second, stream), cudaSuccess);
    stream.synchronize();
    EXPECT_EQ(free_bytes(), 1000U);
}

TEST(Gpus, HaveIdentities) {
    SettingsForAWhile settings;
    settings->gpus = 2;
    int count = 0;
    EXPECT_EQ(cudaGetDeviceCount(&count), cudaSuccess);
    ASSERT_EQ(count, 2);
    cudaDeviceProp first{}, second{};
    EXPECT_EQ(cudaGetDeviceProperties(&first, 0), cudaSuccess);
    EXPECT_EQ(cudaGetDeviceProperties(&second, 1), cudaSuccess);
    EXPECT_NE(std::memcmp(first.uuid.bytes, second.uuid.bytes, sizeof first.uuid.bytes), 0);
    EXPECT_EQ(cudaSetDevice(2), cudaErrorInvalidDevice);
    settings->gpus = 0;
    EXPECT_EQ(cudaGetDeviceCount(&count), cudaErrorNoDevice);
}

}  // namespace
}  // namespace espalier::emulation
