#include "src/weights/block_reader.h"

namespace espalier {

BlockReader::~BlockReader() {
    if (pending_.valid()) pending_.wait();
}

void BlockReader::prefetch(std::size_t block) {
    if (pending_block_ == block) return;
    if (pending_.valid()) pending_.wait();
    pending_block_ = block;
    pending_ = std::async(std::launch::async, read_, block);
}

HostBuffer BlockReader::take(std::size_t block) {
    prefetch(block);
    pending_block_.reset();
    return pending_.get();
}

}  // namespace espalier
