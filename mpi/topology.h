#pragma once
/// Who owns what: the world of P ranks = block groups x data ranks. A pure function of the sizes, without MPI, so that
/// it is tested for any P in one process and printed before a run.
///
/// - The decoder blocks are cut into G contiguous block groups; the result of a run depends on G.
/// - The N calibration samples are cut into S contiguous shards; the result depends on S (order of sums).
/// - Ranks are spread over the groups; nothing depends on how many there are. With fewer ranks than groups a rank
///   works on several groups one after the other.
/// - Inside a group, data rank d holds a contiguous run of shards, and block l is owned (read, audited, written) by
///   data rank l mod D.

#include <cstddef>
#include <vector>

namespace espalier {

/// Half-open range of indices.
struct IndexRange {
    std::size_t begin = 0;
    std::size_t end = 0;
    std::size_t size() const { return end - begin; }
    bool contains(std::size_t index) const { return index >= begin && index < end; }
    bool operator==(const IndexRange&) const = default;
};

/// Part `index` of `parts` nearly equal contiguous parts of 0 … count-1: [index count / parts, (index + 1) count /
/// parts).
IndexRange part_of(std::size_t count, std::size_t parts, std::size_t index);

/// The blocks of one group and the world ranks that work on them, in data-rank order.
struct BlockGroup {
    IndexRange blocks;
    std::vector<int> ranks;

    int owner_of(std::size_t block) const { return static_cast<int>(block % ranks.size()); }  ///< a data rank
};

class Topology {
  public:
    /// Throws InputError when groups is not in 1 … blocks or shards not in 1 … samples.
    Topology(std::size_t ranks, std::size_t blocks, std::size_t groups, std::size_t samples, std::size_t shards);

    const std::vector<BlockGroup>& groups() const { return groups_; }
    /// Groups that `rank` works on, ascending: one, or several when there are fewer ranks than groups.
    std::vector<std::size_t> groups_of(int rank) const;
    std::size_t samples() const { return samples_; }
    std::size_t shards() const { return shards_; }
    IndexRange samples_of_shard(std::size_t shard) const { return part_of(samples_, shards_, shard); }
    /// Shards and samples of data rank `data_rank` of `group`; empty for ranks beyond the number of shards.
    IndexRange shards_of(const BlockGroup& group, std::size_t data_rank) const;
    IndexRange samples_of(const BlockGroup& group, std::size_t data_rank) const;
    /// Data rank that holds `sample` in `group`.
    std::size_t holder_of(const BlockGroup& group, std::size_t sample) const;

  private:
    std::size_t samples_;
    std::size_t shards_;
    std::vector<BlockGroup> groups_;
};

}  // namespace espalier
