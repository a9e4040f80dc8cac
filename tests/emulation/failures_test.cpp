// Mistakes that end the program with a sentence. Address sanitizer finds those in memory where they happen; without it
// a guard zone shows them at the end of the block or of the kernel.
#include "kernels/cuda/reduce.cuh"
#include "tests/emulation/emulation_test.h"

namespace espalier::emulation {
namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr const char* overrun_of_gpu = "AddressSanitizer";
constexpr const char* overrun_of_dynamic = "AddressSanitizer";
constexpr const char* overrun_of_array = "AddressSanitizer";
#else
constexpr const char* overrun_of_gpu = "wrote behind the end of 40 bytes of GPU memory";
constexpr const char* overrun_of_dynamic = "wrote behind the end of 32 bytes of dynamic shared memory";
constexpr const char* overrun_of_array = "wrote behind the end of 128 bytes of a shared array";
#endif

template <typename Kernel, typename... Arguments>
void run(Kernel kernel, const cuda::LaunchShape& shape, Arguments... arguments) {
    const TestStream stream;
    cuda::launch("test", kernel, shape, stream, arguments...);
    stream.synchronize();
}

__global__ void store_at(int* array, unsigned index) {
    array[index] = 1;
}
__global__ void store_in_dynamic(unsigned index) {
    cuda::dynamic_shared<int>()[index] = 1;
}
__global__ void store_in_array(unsigned index) {
    ESPALIER_SHARED_ARRAY(int, values, 32);
    values[index] = 1;
}

TEST(FailuresDeathTest, StoresBehindTheEnd) {
    const GpuArray<int> array(10);
    run(store_at, {1, 1}, array.data(), 9U);
    EXPECT_DEATH(run(store_at, {1, 1}, array.data(), 10U), overrun_of_gpu);
    run(store_in_dynamic, {1, 1, 32}, 7U);
    EXPECT_DEATH(run(store_in_dynamic, {1, 1, 32}, 8U), overrun_of_dynamic);
    run(store_in_array, {1, 1}, 31U);
    EXPECT_DEATH(run(store_in_array, {1, 1}, 32U), overrun_of_array);
}

TEST(FailuresDeathTest, TheHostTouchesGpuMemory) {
#ifdef __SANITIZE_ADDRESS__
    const GpuArray<int> array(10);
    EXPECT_DEATH(static_cast<volatile int*>(array.data())[3] = 1, "AddressSanitizer");
#else
    GTEST_SKIP() << "only address sanitizer sees it";
#endif
}

__global__ void divergent_barrier(int* /*array*/) {
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
}
__global__ void skipped_barrier(int* array) {
    if (threadIdx.x == 5) return;
    __syncthreads();
    array[threadIdx.x] = 1;
}
__global__ void skipped_shuffle(int* array) {
    if (threadIdx.x == 5) return;
    array[threadIdx.x] = __shfl_xor_sync(0xffffffffU, 1, 1);
}
__global__ void lane_outside_mask(int* array) {
    array[threadIdx.x] = __shfl_xor_sync(0x0000ffffU, 1, 1);
}

TEST(FailuresDeathTest, ThreadsThatDoNotMeet) {
    const GpuArray<int> array(64);
    int* const data = array.data();
    EXPECT_DEATH(run(divergent_barrier, {1, 64}, data),
                 "divergent barrier: __syncthreads at .*failures_test.cpp:[0-9]+ while others wait");
    EXPECT_DEATH(run(skipped_barrier, {1, 64}, data),
                 "deadlock in block \\(0, 0, 0\\): 1 threads have returned, 63 wait for .*\n"
                 ".*thread \\(0, 0, 0\\) waits in __syncthreads at .*failures_test.cpp:");
    EXPECT_DEATH(run(skipped_shuffle, {1, 64}, data), "waits in __shfl_xor_sync");
    EXPECT_DEATH(run(lane_outside_mask, {1, 32}, data), "the calling lane is not in the mask; thread \\(16, 0, 0\\)");
    EXPECT_DEATH(__syncthreads(), "__syncthreads at .* was called outside a kernel");
}

TEST(FailuresDeathTest, LaunchesThatAGpuRefuses) {
    const GpuArray<int> array(1);
    EXPECT_DEATH(run(store_at, {1, 1025}, array.data(), 0U), "a GPU refuses a grid of .* threads");
    EXPECT_DEATH(run(store_at, {dim3(1, 65536), 1}, array.data(), 0U), "a GPU refuses a grid");
    EXPECT_DEATH(run(store_in_dynamic, {1, 1, 300000}, 0U), "a GPU refuses 300000 bytes of shared memory");
}

TEST(FailuresDeathTest, MemoryFreedTwice) {
    const TestStream stream;
    EXPECT_DEATH(
        {
            SettingsForAWhile settings;
            settings->lazy_streams = true;
            void* memory = nullptr;
            cudaMallocAsync(&memory, 10, stream);
            cudaFreeAsync(memory, stream);
            cudaFreeAsync(memory, stream);
            stream.synchronize();
        },
        "GPU memory is freed twice");
}

}  // namespace
}  // namespace espalier::emulation
