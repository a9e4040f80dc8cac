#pragma once
/// Half-open ranges of indices: of samples, blocks, shards, rows.

#include <cstddef>

namespace espalier {

/// begin, begin + 1 … end - 1.
struct IndexRange {
    std::size_t begin = 0;
    std::size_t end = 0;
    std::size_t size() const { return end - begin; }
    bool contains(std::size_t index) const { return index >= begin && index < end; }
    bool operator==(const IndexRange&) const = default;
};

/// Part `index` of `parts` nearly equal contiguous parts of 0 … count-1: [index count / parts, (index + 1) count /
/// parts).
inline IndexRange part_of(std::size_t count, std::size_t parts, std::size_t index) {
    return {index * count / parts, (index + 1) * count / parts};
}

}  // namespace espalier
