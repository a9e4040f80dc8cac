#include "mpi/topology.h"

#include "src/base/error.h"

#include <algorithm>
#include <string>

namespace espalier {

Topology::Topology(std::size_t ranks, std::size_t blocks, std::size_t groups, std::size_t samples, std::size_t shards)
    : ranks_(ranks), samples_(samples), shards_(shards), at_a_time_(std::min(ranks, groups)) {
    if (groups == 0 || groups > blocks) {
        throw InputError("--block-groups must lie between 1 and the model's " + std::to_string(blocks) +
                         " decoder blocks, not " + std::to_string(groups));
    }
    if (shards == 0 || shards > samples) {
        throw InputError("--shards must lie between 1 and the " + std::to_string(samples) + " samples, not " +
                         std::to_string(shards));
    }
    for (std::size_t g = 0; g < groups; ++g) {
        BlockGroup& group = groups_.emplace_back();
        group.blocks = part_of(blocks, groups, g);
        if (ranks >= groups) {
            const IndexRange members = part_of(ranks, groups, g);
            for (std::size_t r = members.begin; r < members.end; ++r) group.ranks.push_back(static_cast<int>(r));
        } else {
            group.ranks.push_back(static_cast<int>(g % ranks));
        }
    }
}

IndexRange Topology::groups_of_round(std::size_t round) const {
    return {round * at_a_time_, std::min((round + 1) * at_a_time_, groups_.size())};
}

std::optional<std::size_t> Topology::group_of(int rank, std::size_t round) const {
    const IndexRange groups = groups_of_round(round);
    for (std::size_t g = groups.begin; g < groups.end; ++g) {
        const std::vector<int>& ranks = groups_[g].ranks;
        if (std::find(ranks.begin(), ranks.end(), rank) != ranks.end()) return g;
    }
    return std::nullopt;
}

IndexRange Topology::shards_of(const BlockGroup& group, std::size_t data_rank) const {
    return part_of(shards_, group.ranks.size(), data_rank);
}

IndexRange Topology::samples_of(const BlockGroup& group, std::size_t data_rank) const {
    const IndexRange mine = shards_of(group, data_rank);
    return {part_of(samples_, shards_, mine.begin).begin, part_of(samples_, shards_, mine.end).begin};
}

std::vector<std::size_t> Topology::shard_offsets(const BlockGroup& group) const {
    std::vector<std::size_t> offsets;
    for (std::size_t d = 0; d < group.ranks.size(); ++d) offsets.push_back(shards_of(group, d).begin);
    offsets.push_back(shards_);
    return offsets;
}

std::size_t Topology::holder_of(const BlockGroup& group, std::size_t sample) const {
    for (std::size_t d = 0; d < group.ranks.size(); ++d) {
        if (samples_of(group, d).contains(sample)) return d;
    }
    throw BugError("internal error: a sample that no data rank holds");
}

int Topology::dense_holder_of(std::size_t sample) const {
    for (std::size_t rank = 0; rank < ranks_; ++rank) {
        if (dense_samples_of(static_cast<int>(rank)).contains(sample)) return static_cast<int>(rank);
    }
    throw BugError("internal error: a sample that no rank holds");
}

}  // namespace espalier
