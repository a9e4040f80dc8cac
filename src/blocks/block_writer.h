#pragma once
/// Writes pruned blocks in a background thread while the next block is computed.

#include "kernels/device.h"
#include "src/base/pruning_pattern.h"
#include "src/model/block_layout.h"
#include "src/weights/block_source.h"
#include "src/weights/manifest.h"

#include <cstddef>
#include <deque>
#include <future>
#include <map>
#include <string>
#include <vector>

namespace espalier {

/// A block as it goes into its file, in host memory.
struct BlockToWrite {
    std::size_t block = 0;
    BlockStorage storage;  ///< of `tensors`
    HostBuffer tensors;    ///< matrices in the output type, then vectors with their bits
    HostBuffer mask;       ///< one byte a weight, 1 = kept; empty for a block that is copied
    Json metrics;
};

/// The mask as numbers; empty for a block that is copied.
std::span<const std::uint8_t> mask_bytes(const BlockToWrite& block);

/// A committed block: what the manifest needs to know.
struct WrittenBlock {
    std::size_t block = 0;
    BlockRecord record;
};

/// Throws ResourceError or BugError when the file does not hold exactly what was meant to be written: every group or
/// row exact, removed weights +0.0, every weight finite, checksums equal.
/// `threads` of the host look.
void audit_block_file(const std::filesystem::path& file, const BlockToWrite& block, const BlockLayout& layout,
                      const PruningPattern& pattern, int threads = 1);

/// What of the host a BlockWriter may use.
struct WriterShare {
    int threads = 1;         ///< for each block under way
    std::size_t blocks = 1;  ///< under way at most: each is in host memory
};

/// Starting a block waits until there is room for it.
class BlockWriter {
  public:
    /// `share` is small where the host computes as well, and larger where a GPU does.
    BlockWriter(const RunFolder& run, const BlockLayout& layout, const PruningPattern& pattern,
                std::map<std::string, std::string> attributes, WriterShare share = {});
    BlockWriter(const BlockWriter&) = delete;
    BlockWriter& operator=(const BlockWriter&) = delete;
    ~BlockWriter();

    /// Waits until another block may be under way: before its memory is taken. Rethrows what writing threw.
    void wait_for_room();
    /// Waits for room, then returns at once. The device of the block's buffers must outlive the writer.
    void start(BlockToWrite block);
    /// Blocks committed since the last call, in the order of their start; with `wait` also those under way. Rethrows
    /// what writing one threw.
    std::vector<WrittenBlock> take_written(bool wait);

  private:
    WrittenBlock write(const BlockToWrite& block) const;

    const RunFolder& run_;
    const BlockLayout& layout_;
    PruningPattern pattern_;
    std::map<std::string, std::string> attributes_;
    WriterShare share_;
    std::deque<std::future<WrittenBlock>> pending_;
    std::vector<WrittenBlock> written_;
};

}  // namespace espalier
