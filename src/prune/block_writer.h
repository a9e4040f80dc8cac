#pragma once
/// Writes pruned blocks in a background thread while the next block is computed.

#include "io/run_folder.h"
#include "src/model/block_layout.h"
#include "src/weights/model_source.h"

#include <cstddef>
#include <functional>
#include <future>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace espalier {

/// A block as it goes into its file, in host memory.
struct BlockToWrite {
    std::size_t block = 0;
    BlockStorage storage;  ///< of `tensors`
    HostBuffer tensors;    ///< matrices in the output type, then vectors with their bits
    HostBuffer mask;       ///< one byte a weight, 1 = kept; empty for a block that is copied
    HostBuffer dense;      ///< what was read, when `complete_metrics` wants it
    Json metrics;
    /// Runs in the writer's thread before the file is written: measurements for which the host is needed, not the
    /// device. May be empty.
    std::function<void(BlockToWrite&)> complete_metrics;
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

/// Rows of a mask (0 or 1) packed eight to a byte, lowest bit first, each row padded to whole bytes.
std::vector<std::byte> pack_mask(std::span<const std::uint8_t> mask, std::size_t columns);
std::vector<std::uint8_t> unpack_mask(std::span<const std::byte> packed, std::size_t rows, std::size_t columns);

/// At most one block is under way; starting the next waits for it.
class BlockWriter {
  public:
    /// `threads` of the host are used while a block is written: one where they compute as well, all of a rank's where
    /// a GPU does.
    BlockWriter(const RunFolder& run, const BlockLayout& layout, const PruningPattern& pattern,
                std::map<std::string, std::string> attributes, int threads = 1);
    BlockWriter(const BlockWriter&) = delete;
    BlockWriter& operator=(const BlockWriter&) = delete;
    ~BlockWriter();

    /// Waits for the block before, then returns at once. Rethrows what writing it threw. The device of the block's
    /// buffers must outlive the writer.
    void start(BlockToWrite block);
    /// Blocks committed since the last call; with `wait` also the one under way.
    std::vector<WrittenBlock> take_written(bool wait);

  private:
    WrittenBlock write(const BlockToWrite& block) const;

    const RunFolder& run_;
    const BlockLayout& layout_;
    PruningPattern pattern_;
    std::map<std::string, std::string> attributes_;
    int threads_;
    std::future<WrittenBlock> pending_;
    std::vector<WrittenBlock> written_;
};

}  // namespace espalier
