#pragma once
/// Owners of CUDA's streams and events.

#include "kernels/cuda/cuda_error.h"

#include <cuda_runtime_api.h>

namespace espalier::cuda {

/// Does not wait for the legacy default stream, nor it for this one.
class Stream {
  public:
    Stream() : Stream(0) {}
    /// Before streams of lower priority, where both have work.
    static Stream of_highest_priority() {
        int lowest = 0, highest = 0;
        check(cudaDeviceGetStreamPriorityRange(&lowest, &highest), "cudaDeviceGetStreamPriorityRange");
        return Stream(highest);
    }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    ~Stream() { cudaStreamDestroy(stream_); }

    operator cudaStream_t() const { return stream_; }  // NOLINT(google-explicit-constructor): CUDA's calls take it

  private:
    explicit Stream(int priority) {
        check(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, priority), "cudaStreamCreateWithPriority");
    }
    cudaStream_t stream_ = nullptr;
};

/// A point in a stream; none before the first record().
class Event {
  public:
    Event() { check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreateWithFlags"); }
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;
    ~Event() { cudaEventDestroy(event_); }

    void record(cudaStream_t stream) { check(cudaEventRecord(event_, stream), "cudaEventRecord"); }
    /// What follows in `stream` waits for it.
    void delay(cudaStream_t stream) const { check(cudaStreamWaitEvent(stream, event_, 0), "cudaStreamWaitEvent"); }
    /// Throws what went wrong in the stream before.
    bool has_passed(const char* operation) const {
        const cudaError_t status = cudaEventQuery(event_);
        if (status != cudaErrorNotReady) check(status, operation);
        return status == cudaSuccess;
    }

  private:
    cudaEvent_t event_ = nullptr;
};

}  // namespace espalier::cuda
