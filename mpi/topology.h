#pragma once
/// Who owns what: the world of P ranks = block groups x data ranks. A pure function of the sizes, without MPI, so that
/// it is tested for any P in one process and printed before a run.
///
/// - The decoder blocks are cut into G contiguous block groups; the result of a run depends on G.
/// - The N calibration samples are cut into S contiguous shards; the result depends on S (order of sums).
/// - Ranks are spread over the groups; nothing depends on how many there are. With fewer ranks than groups they work in
///   rounds: on the first P groups together, then on the next.
/// - Inside a group, data rank d holds a contiguous run of shards, and block l is owned (audited, written) by data rank
///   l mod D.
/// - To pass all samples through dense blocks, every rank of the world takes a contiguous run of them.

#include "src/base/index_range.h"

#include <cstddef>
#include <optional>
#include <vector>

namespace espalier {

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
    /// Groups of the rounds, one round after the other: [groups_of_round(r).begin, .end) are worked on at one time.
    std::size_t rounds() const { return (groups_.size() + at_a_time_ - 1) / at_a_time_; }
    IndexRange groups_of_round(std::size_t round) const;
    /// The group that `rank` works on in a round; none when the last round has fewer groups than there are ranks.
    std::optional<std::size_t> group_of(int rank, std::size_t round) const;
    std::size_t ranks() const { return ranks_; }
    std::size_t samples() const { return samples_; }
    std::size_t shards() const { return shards_; }
    IndexRange samples_of_shard(std::size_t shard) const { return part_of(samples_, shards_, shard); }
    /// Shards and samples of data rank `data_rank` of `group`; empty for ranks beyond the number of shards.
    IndexRange shards_of(const BlockGroup& group, std::size_t data_rank) const;
    IndexRange samples_of(const BlockGroup& group, std::size_t data_rank) const;
    /// Where the shards of each data rank begin, and their number: as many entries as ranks of `group` and one.
    std::vector<std::size_t> shard_offsets(const BlockGroup& group) const;
    /// Data rank that holds `sample` in `group`.
    std::size_t holder_of(const BlockGroup& group, std::size_t sample) const;
    /// Samples that `rank` of the world passes through dense blocks, and the rank that does so with `sample`.
    IndexRange dense_samples_of(int rank) const { return part_of(samples_, ranks_, static_cast<std::size_t>(rank)); }
    int dense_holder_of(std::size_t sample) const;

  private:
    std::size_t ranks_;
    std::size_t samples_;
    std::size_t shards_;
    std::size_t at_a_time_;  ///< groups
    std::vector<BlockGroup> groups_;
};

}  // namespace espalier
