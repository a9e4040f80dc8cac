#pragma once
/// What the tests of the emulation share: settings for a while, a stream, and arrays of a GPU.

#include "kernels/cuda/launch.cuh"
#include "tests/emulation/settings.h"

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <vector>

namespace espalier::emulation {

/// Restores the settings at its end. Use: SettingsForAWhile settings; settings->order = …
class SettingsForAWhile {
  public:
    SettingsForAWhile() = default;
    SettingsForAWhile(const SettingsForAWhile&) = delete;
    SettingsForAWhile& operator=(const SettingsForAWhile&) = delete;
    ~SettingsForAWhile() { settings() = before_; }
    Settings* operator->() { return &settings(); }

  private:
    Settings before_ = settings();
};

class TestStream {
  public:
    TestStream() { EXPECT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess); }
    TestStream(const TestStream&) = delete;
    TestStream& operator=(const TestStream&) = delete;
    ~TestStream() { EXPECT_EQ(cudaStreamDestroy(stream_), cudaSuccess); }

    operator cudaStream_t() const { return stream_; }  // NOLINT(google-explicit-constructor): it is one
    void synchronize() const { EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess); }

  private:
    cudaStream_t stream_ = nullptr;
};

/// Memory of GPU 0.
template <typename T>
class GpuArray {
  public:
    explicit GpuArray(std::size_t count) : count_(count) {
        EXPECT_EQ(cudaMalloc(reinterpret_cast<void**>(&data_), count * sizeof(T)), cudaSuccess);
    }
    explicit GpuArray(const std::vector<T>& values) : GpuArray(values.size()) {
        const TestStream stream;
        EXPECT_EQ(cudaMemcpyAsync(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice, stream),
                  cudaSuccess);
        stream.synchronize();
    }
    GpuArray(const GpuArray&) = delete;
    GpuArray& operator=(const GpuArray&) = delete;
    ~GpuArray() { EXPECT_EQ(cudaFree(data_), cudaSuccess); }

    T* data() const { return data_; }
    std::size_t size() const { return count_; }
    std::vector<T> read(cudaStream_t stream) const {
        std::vector<T> values(count_);
        EXPECT_EQ(cudaMemcpyAsync(values.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost, stream),
                  cudaSuccess);
        return values;
    }
    std::vector<T> read() const { return read(TestStream()); }

  private:
    T* data_ = nullptr;
    std::size_t count_;
};

inline constexpr Order all_orders[] = {Order::forward, Order::reverse, Order::greedy, Order::random};

/// What `run` returns in each order.
template <typename Run>
auto in_all_orders(const Run& run) {
    SettingsForAWhile settings;
    std::vector<decltype(run())> results;
    for (const Order order : all_orders) {
        settings->order = order;
        results.push_back(run());
    }
    return results;
}

}  // namespace espalier::emulation
