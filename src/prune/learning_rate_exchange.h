#pragma once
/// `--ro-learning-rate auto` in several block groups: the group of the first pruned block searches the rate, and every
/// other rank of the world waits for it, at the latest at the end of that group's round.

#include "mpi/session.h"
#include "mpi/topology.h"
#include "src/method/prune_options.h"

#include <cstddef>
#include <optional>
#include <vector>

namespace espalier {

/// In the round of the searching group every rank takes part in one broadcast over the world, unless the rate is known:
/// those of that group when it has found one or stops before, the others when they ask for it.
class LearningRateExchange {
  public:
    /// `known`: a rate that was given, or found by an earlier start of this run. References outlive it.
    LearningRateExchange(const Session& session, const PruneOptions& options, const Topology& topology,
                         std::optional<double> known);

    std::optional<double> rate() const { return rate_; }
    std::size_t searching_group() const { return searching_group_; }
    /// The rank that tells rank 0 of the result.
    int speaker() const { return searching_ranks().front(); }
    /// Whether ranks outside of the searching group have to receive() in this round.
    bool is_awaited(std::size_t round) const;
    bool searches_here() const;

    /// The searching group has found the rate. Collective over the world, with receive().
    void share(double rate);
    /// This rank stops before there is a rate: from the searching group all others then hear that none comes; in
    /// another group it takes part, and goes on with nothing. The same.
    void give_up();
    /// Waits for it; absent when the searching group gave up. The same.
    std::optional<double> receive();

  private:
    const std::vector<int>& searching_ranks() const { return topology_.groups()[searching_group_].ranks; }
    void broadcast(std::optional<double> rate);

    const Session& session_;
    const PruneOptions& options_;
    const Topology& topology_;
    std::optional<double> rate_;
    std::size_t searching_group_ = 0;
};

}  // namespace espalier
