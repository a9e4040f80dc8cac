#pragma once
/// Samples on the device, one after the other, in an order known before.

#include "src/samples/sample_store.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace espalier {

/// From host memory samples are copied two ahead of the one in use; on the device they are handed out where they lie.
class SampleReader {
  public:
    /// Device and store outlive it.
    SampleReader(Device& device, const SampleStore& store, std::vector<std::size_t> order);
    SampleReader(const SampleReader&) = delete;
    SampleReader& operator=(const SampleReader&) = delete;
    ~SampleReader();

    /// The next sample of the order, on the device; to be used (and, if changed, given to SampleStore::write_back) by
    /// operations called before the next call.
    TensorView next();

  private:
    static constexpr std::size_t buffers = 3;

    Device& device_;
    const SampleStore& store_;
    std::vector<std::size_t> order_;
    std::size_t taken_ = 0, started_ = 0;
    std::array<Tensor, buffers> buffers_;
    std::array<std::uint64_t, buffers> copies_{};
};

/// Every sample that the store holds, ascending.
std::vector<std::size_t> all_samples_of(const SampleStore& store);

}  // namespace espalier
