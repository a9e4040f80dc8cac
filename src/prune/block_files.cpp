#include "src/prune/block_files.h"

#include <algorithm>

namespace espalier {

BlockFiles::BlockFiles(const PipelineContext& context, const BlockLoader& loader)
    : c_(context),
      run_(context.options.output),
      written_storage_{context.options.output_dtype, context.source.storage().vector_dtypes},
      committed_(run_, context.source.layout(), written_storage_, context.state.committed),
      dense_reader_([this, &loader](std::size_t block) { return loader.read(c_.source, block); }),
      committed_reader_([this, &loader](std::size_t block) { return loader.read(committed_, block); }),
      writer_(
          run_, context.source.layout(), context.options.pattern, context.block_attributes,
          context.device.multiprocessors() > 0 ? WriterShare{std::min(4, context.host_threads), 3} : WriterShare{}) {}

BlockPart BlockFiles::read(std::size_t block, IndexRange blocks) {
    BlockPart part = reader_of(block).take(block);
    if (block + 1 < blocks.end) prefetch(block + 1);
    return part;
}

}  // namespace espalier
