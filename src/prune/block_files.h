#pragma once
/// A run's blocks in files: dense ones of the model, and those that this or an earlier start of the run has written.

#include "src/blocks/block_loader.h"
#include "src/blocks/block_writer.h"
#include "src/prune/pipeline.h"
#include "src/weights/block_reader.h"
#include "src/weights/run_source.h"

#include <cstddef>
#include <vector>

namespace espalier {

class BlockFiles {
  public:
    /// `loader` reads a rank's parts of blocks. Both outlive it.
    BlockFiles(const PipelineContext& context, const BlockLoader& loader);

    /// Written by an earlier start.
    bool is_committed(std::size_t block) const { return c_.state.committed.contains(block); }
    /// As blocks are written, and as committed ones are read.
    const BlockStorage& written_storage() const { return written_storage_; }

    void prefetch(std::size_t block) { reader_of(block).prefetch(block); }
    /// What this rank has read of the block; the next one of `blocks` is on its way to host memory.
    BlockPart read(std::size_t block, IndexRange blocks);

    BlockWriter& writer() { return writer_; }

  private:
    BlockReader<BlockPart>& reader_of(std::size_t block) {
        return is_committed(block) ? committed_reader_ : dense_reader_;
    }

    const PipelineContext& c_;
    RunFolder run_;
    BlockStorage written_storage_;
    CommittedBlocks committed_;
    BlockReader<BlockPart> dense_reader_, committed_reader_;
    BlockWriter writer_;
};

}  // namespace espalier
