#include "src/evaluate/packed_sequences.h"

#include <algorithm>

namespace espalier {

PackingShape shape_of(std::span<const PackedSequences> passes) {
    PackingShape shape;
    for (const PackedSequences& pass : passes) {
        for (const RowSegment& segment : pass.segments) {
            shape.tokens = std::max(shape.tokens, segment.prefix_rows + segment.rows);
            shape.with_prefixes = shape.with_prefixes || segment.prefix_rows > 0;
        }
        shape.rows = std::max(shape.rows, pass.ids.size());
        shape.predictions = std::max(shape.predictions, pass.rows.size());
    }
    return shape;
}

}  // namespace espalier
