// Blocks of several warps: barriers, shared memory, orders, and what shows that a barrier is missing.
#include "kernels/cuda/reduce.cuh"
#include "tests/emulation/emulation_test.h"
#include "tests/emulation/thread_sanitizer.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace espalier::emulation {
namespace {

constexpr int threads = 128;

/// out[block] = the sum of the block's part of `values`, whose float32 order is fixed.
__global__ void sum_kernel(const float* values, float* out) {
    const std::size_t i = std::size_t{blockIdx.x} * threads + threadIdx.x;
    const float sum = cuda::reduce_in_block<threads>(values[i], 0.0F, cuda::Sum());
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

TEST(Block, SumsHaveTheSameBitsInAllOrders) {
    std::vector<float> values(5 * threads);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i)) * 1e3F;
    const auto results = in_all_orders([&] {
        const GpuArray<float> in(values), out(5);
        const TestStream stream;
        cuda::launch("sum", sum_kernel, {5, threads}, stream, in.data(), out.data());
        return out.read(stream);
    });
    for (std::size_t block = 0; block < 5; ++block) {
        double expected = 0;
        for (std::size_t i = block * threads; i < (block + 1) * threads; ++i)
            expected += static_cast<double>(values[i]);
        EXPECT_NEAR(results[0][block], expected, 1e-2);
    }
    for (const auto& result : results) EXPECT_EQ(result, results[0]);
}

/// Reverses the block's numbers in shared memory; with `rounds` > 1 again and again. A barrier can be left out.
template <bool before_reading, bool before_writing>
__global__ void reverse_kernel(int rounds, int* values) {
    int* const shared = cuda::dynamic_shared<int>();
    const unsigned i = threadIdx.x;
    int value = values[i];
    for (int round = 0; round < rounds; ++round) {
        shared[i] = value;
        if constexpr (before_reading) __syncthreads();
        value = shared[threads - 1 - i];
        if constexpr (before_writing) __syncthreads();
    }
    values[i] = value;
}

template <typename Kernel>
std::vector<std::vector<int>> reversed_in_all_orders(Kernel kernel, int rounds) {
    std::vector<int> values(threads);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<int>(i);
    return in_all_orders([&] {
        const GpuArray<int> array(values);
        const TestStream stream;
        cuda::launch("reverse", kernel, {1, threads, threads * sizeof(int)}, stream, rounds, array.data());
        return array.read(stream);
    });
}

bool all_equal(const std::vector<std::vector<int>>& results) {
    return std::all_of(results.begin(), results.end(), [&](const auto& result) { return result == results[0]; });
}

TEST(Block, BarriersSeparateWritingFromReading) {
    const auto results = reversed_in_all_orders(reverse_kernel<true, true>, 3);
    EXPECT_TRUE(all_equal(results));
    EXPECT_EQ(results[0][0], threads - 1);
}

TEST(Block, AMissingBarrierAfterWritingShowsInEveryOrder) {
    if (thread_sanitizer) GTEST_SKIP() << "thread sanitizer reports the planted race";
    const auto results = reversed_in_all_orders(reverse_kernel<false, true>, 1);
    EXPECT_FALSE(all_equal(results));
    const auto correct = reversed_in_all_orders(reverse_kernel<true, true>, 1);
    for (std::size_t order = 0; order < results.size(); ++order) EXPECT_NE(results[order], correct[0]) << order;
}

TEST(Block, AMissingBarrierBeforeWritingShowsInSomeOrder) {
    if (thread_sanitizer) GTEST_SKIP() << "thread sanitizer reports the planted race";
    const auto results = reversed_in_all_orders(reverse_kernel<true, false>, 3);
    EXPECT_FALSE(all_equal(results));
}

TEST(BlockDeathTest, ThreadSanitizerFindsEveryMissingBarrier) {
    if (!thread_sanitizer) GTEST_SKIP() << "not compiled with thread sanitizer";
    const auto run = [](auto kernel) {
        reversed_in_all_orders(kernel, 3);
        std::exit(0);
    };
    const testing::ExitedWithCode races(66), none(0);
    EXPECT_EXIT(run(reverse_kernel<true, true>), none, "");
    EXPECT_EXIT(run(reverse_kernel<false, true>), races, "data race");
    EXPECT_EXIT(run(reverse_kernel<true, false>), races, "data race");
}

__global__ void counting_barriers(int* out) {
    const int thread = static_cast<int>(threadIdx.x);
    const int threes = __syncthreads_count(thread % 3 == 0), any = __syncthreads_or(thread == 77);
    const int all = __syncthreads_and(thread < 77);
    out[thread] = threes * 100 + any * 10 + all;
}

TEST(Block, BarriersCountPredicates) {
    for (const auto& found : in_all_orders([] {
             const GpuArray<int> out(threads);
             const TestStream stream;
             cuda::launch("count", counting_barriers, {1, threads}, stream, out.data());
             return out.read(stream);
         })) {
        EXPECT_EQ(found, std::vector<int>(threads, 43 * 100 + 10));
    }
}

/// Sums two tiles of `values`, the second of which is copied while the first is read.
template <unsigned left>
__global__ void pipelined_kernel(const int* values, int* out) {
    ESPALIER_SHARED_ARRAY(int, tiles, 2 * threads);
    const unsigned i = threadIdx.x;
    for (unsigned tile = 0; tile < 2; ++tile) {
        copy_asynchronously(tiles + tile * threads + i, values + tile * threads + i, sizeof(int));
        commit_copies();
    }
    wait_for_copies(1);
    __syncthreads();
    const int first = tiles[threads - 1 - i];
    wait_for_copies(left);
    __syncthreads();
    out[i] = first + tiles[2 * threads - 1 - i];
}

template <typename Kernel>
std::vector<int> pipelined(Kernel kernel) {
    const GpuArray<int> values(std::vector<int>(2 * threads, 21)), out(threads);
    const TestStream stream;
    cuda::launch("pipelined", kernel, {1, threads}, stream, values.data(), out.data());
    return out.read(stream);
}

TEST(Block, LazyStreamsShowAMissingWaitForACopy) {
    SettingsForAWhile settings;
    const std::vector<int> sums(threads, 42);
    EXPECT_EQ(pipelined(pipelined_kernel<0>), sums);
    EXPECT_EQ(pipelined(pipelined_kernel<1>), sums);  // eager: by luck
    settings->lazy_streams = true;
    EXPECT_EQ(pipelined(pipelined_kernel<0>), sums);
    EXPECT_NE(pipelined(pipelined_kernel<1>), sums);
}

/// Every thread of a grid of three dimensions adds 1 to its own place, and its block to a counter.
__global__ void visit_kernel(int* places, int* blocks) {
    const dim3 size(gridDim.x * blockDim.x, gridDim.y * blockDim.y, gridDim.z * blockDim.z);
    const unsigned x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    const unsigned z = blockIdx.z * blockDim.z + threadIdx.z;
    places[(z * size.y + y) * size.x + x] += 1;
    if (threadIdx.x + threadIdx.y + threadIdx.z == 0) atomicAdd(blocks, 1);
}

TEST(Block, GridsOfThreeDimensionsVisitEveryThreadOnce) {
    constexpr std::size_t count = 3 * 5 * 2 * 7 * 2 * 4;
    for (const auto& found : in_all_orders([] {
             const GpuArray<int> places(std::vector<int>(count, 0)), blocks(std::vector<int>(1, 0));
             const TestStream stream;
             cuda::launch("visit", visit_kernel, {dim3(3, 2, 2), dim3(5, 7, 4)}, stream, places.data(), blocks.data());
             EXPECT_EQ(blocks.read(stream)[0], 12);
             return places.read(stream);
         })) {
        EXPECT_EQ(found, std::vector<int>(count, 1));
    }
}

__global__ void read_unwritten(float* out) {
    ESPALIER_SHARED_ARRAY(float, values, 4);
    out[blockIdx.x] = values[1] + cuda::dynamic_shared<float>()[1];
    values[1] = 1;
    cuda::dynamic_shared<float>()[1] = 1;
}

TEST(Block, SharedAndFreshMemoryIsNotANumber) {
    const GpuArray<float> out(3), fresh(2);
    const TestStream stream;
    cuda::launch("unwritten", read_unwritten, {3, 1, 16}, stream, out.data());
    for (const float value : out.read(stream)) EXPECT_TRUE(std::isnan(value));
    for (const float value : fresh.read(stream)) EXPECT_TRUE(std::isnan(value));
}

}  // namespace
}  // namespace espalier::emulation
