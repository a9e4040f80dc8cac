#pragma once
/// A [T, columns] matrix for each of the samples that one rank holds, on the device or, when it is too small, in
/// page-locked host memory, from which SampleReader brings them while others are computed on.

#include "kernels/device.h"
#include "src/base/index_range.h"

#include <cstddef>
#include <cstdint>
#include <utility>

namespace espalier {

/// Names the device memory of samples that lie in host memory.
constexpr const char* samples_on_their_way = "samples on their way";

enum class StoragePlace { device, host };

class SampleStore {
  public:
    SampleStore(Device& device, IndexRange samples, std::size_t tokens, std::size_t columns, DType dtype,
                StoragePlace place, const char* name)
        : device_(&device), samples_(samples), tokens_(tokens) {
        const std::size_t rows = samples.size() * tokens;
        if (place == StoragePlace::device) {
            on_device_ = device.make_tensor(dtype, rows, columns, name);
            all_ = on_device_;
        } else {
            on_host_ = HostBuffer(device, rows * columns * bytes_of(dtype));
            all_ = on_host_.view(dtype, 0, rows, columns);
        }
    }

    IndexRange samples() const { return samples_; }
    std::size_t tokens() const { return tokens_; }
    DType dtype() const { return all_.dtype; }
    StoragePlace place() const { return on_host_.empty() ? StoragePlace::device : StoragePlace::host; }
    bool on_host() const { return !on_host_.empty(); }
    /// A sample, by its index among all, where it lies. In host memory only Device::start_copy may touch it.
    TensorView sample(std::size_t index) const {
        require(samples_.contains(index), "a sample that this rank holds");
        const std::size_t first = (index - samples_.begin) * tokens_;
        return all_.row_range(first, first + tokens_);
    }
    TensorView all() const { return all_; }
    /// The sample <- `values` in device memory, which may be the sample itself. Does not wait: the next start_copy from
    /// or to `values` is ordered after it, and so is what follows Device::wait_for_copy of the number returned.
    std::uint64_t write_back(std::size_t index, TensorView values) {
        const TensorView place = sample(index);
        return values.data == place.data ? 0 : device_->start_copy(values, place);
    }

  private:
    Device* device_;
    IndexRange samples_;
    std::size_t tokens_;
    Tensor on_device_;
    HostBuffer on_host_;
    TensorView all_;
};

}  // namespace espalier
