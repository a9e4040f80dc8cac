#pragma once
/// Numbers that device operations compute and the host reads together, so that it waits once instead of for each.

#include "kernels/device.h"

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

namespace espalier {

/// `count` float64 sums (T = double) or uint64 counters (T = std::uint64_t) on a device, zero at first.
template <typename T>
class DeviceNumbers {
    static_assert(std::is_same_v<T, double> || std::is_same_v<T, std::uint64_t>);

  public:
    DeviceNumbers(Device& device, std::size_t count)
        : device_(device),
          storage_(device.make_tensor(std::is_same_v<T, double> ? DType::f64 : DType::u64, 1, count,
                                      "numbers for the host")) {
        device.fill_zero(storage_);
    }

    /// The element that an operation writes.
    TensorView at(std::size_t index) const { return storage_.view().element(index); }

    /// All of them, for an operation that writes them together.
    TensorView all() const { return storage_.view(); }
    /// All of them, after waiting for the device.
    std::vector<T> read() const {
        std::vector<T> values(storage_.view().size());
        device_.copy_to_host(storage_, values.data());
        return values;
    }

  private:
    Device& device_;
    Tensor storage_;
};

using DeviceSums = DeviceNumbers<double>;
using DeviceCounters = DeviceNumbers<std::uint64_t>;

}  // namespace espalier
