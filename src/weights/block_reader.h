#pragma once
/// Reads blocks in a background thread, one ahead, while the present one is computed.

#include <cstddef>
#include <functional>
#include <future>
#include <optional>
#include <utility>

namespace espalier {

/// `Content` is a block in host memory, or a part of it. Holds at most one that has not been taken. Not thread-safe:
/// one consumer.
template <typename Content>
class BlockReader {
  public:
    using Read = std::function<Content(std::size_t block)>;
    /// `read` runs in a thread of its own; what it throws comes out of take().
    explicit BlockReader(Read read) : read_(std::move(read)) {}
    BlockReader(const BlockReader&) = delete;
    BlockReader& operator=(const BlockReader&) = delete;
    ~BlockReader() {
        if (pending_.valid()) pending_.wait();
    }

    /// Starts reading `block`, unless it is under way already.
    void prefetch(std::size_t block) {
        if (pending_block_ == block) return;
        if (pending_.valid()) pending_.wait();
        pending_block_ = block;
        pending_ = std::async(std::launch::async, read_, block);
    }
    /// The block, waiting for it (or reading it now when it was not prefetched).
    Content take(std::size_t block) {
        prefetch(block);
        pending_block_.reset();
        return pending_.get();
    }

  private:
    Read read_;
    std::optional<std::size_t> pending_block_;
    std::future<Content> pending_;
};

}  // namespace espalier
