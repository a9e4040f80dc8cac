#include "src/weights/block_source.h"

#include "src/base/error.h"

namespace espalier {

std::size_t BlockStorage::vector_bytes(const BlockLayout& layout) const {
    std::size_t bytes = 0;
    for (std::size_t v = 0; v < layout.vectors().size(); ++v) {
        bytes += layout.vectors()[v].size * bytes_of(vector_dtypes[v]);
    }
    return bytes;
}

void BlockSource::read_block(std::size_t block, std::span<std::byte> destination) const {
    require(destination.size() == storage_.total_bytes(layout()), "room for a block");
    verify_block(block);
    const std::size_t element = bytes_of(storage_.matrix_dtype);
    for (const LinearLayer layer : layout().linear_layers()) {
        const MatrixShape& matrix = layout().matrix(layer);
        read_rows(block, {layer, 0, matrix.rows},
                  destination.subspan(element * matrix.offset, element * matrix.size()));
    }
    read_vectors(block, destination.subspan(storage_.matrix_bytes(layout())));
}

}  // namespace espalier
