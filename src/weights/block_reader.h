#pragma once
/// Reads blocks in a background thread, one ahead, while the present one is computed.

#include "kernels/device.h"

#include <cstddef>
#include <functional>
#include <future>
#include <optional>

namespace espalier {

/// Holds at most one block that has not been taken. Not thread-safe: one consumer.
class BlockReader {
  public:
    using Read = std::function<HostBuffer(std::size_t block)>;
    /// `read` runs in a thread of its own; what it throws comes out of take().
    explicit BlockReader(Read read) : read_(std::move(read)) {}
    BlockReader(const BlockReader&) = delete;
    BlockReader& operator=(const BlockReader&) = delete;
    ~BlockReader();

    /// Starts reading `block`, unless it is under way already.
    void prefetch(std::size_t block);
    /// The block, waiting for it (or reading it now when it was not prefetched).
    HostBuffer take(std::size_t block);

  private:
    Read read_;
    std::optional<std::size_t> pending_block_;
    std::future<HostBuffer> pending_;
};

}  // namespace espalier
