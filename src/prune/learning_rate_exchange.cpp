#include "src/prune/learning_rate_exchange.h"

#include "src/base/error.h"

#include <algorithm>
#include <array>

namespace espalier {

LearningRateExchange::LearningRateExchange(const Session& session, const PruneOptions& options,
                                           const Topology& topology, std::optional<double> known)
    : session_(session), options_(options), topology_(topology), rate_(known) {
    const std::vector<BlockGroup>& groups = topology.groups();
    const auto searching = std::find_if(groups.begin(), groups.end(), [&](const BlockGroup& group) {
        return group.blocks.contains(options.first_pruned_block());
    });
    require(searching != groups.end(), "a group that holds the first pruned block");
    searching_group_ = static_cast<std::size_t>(searching - groups.begin());
}

bool LearningRateExchange::is_awaited(std::size_t round) const {
    return options_.method.optimises_regionally() && !rate_ &&
           topology_.groups_of_round(round).contains(searching_group_);
}

bool LearningRateExchange::searches_here() const {
    const std::vector<int>& ranks = searching_ranks();
    return std::find(ranks.begin(), ranks.end(), session_.rank()) != ranks.end();
}

void LearningRateExchange::broadcast(std::optional<double> rate) {
    struct Found {
        double rate;
        bool exists;
    };
    std::array<Found, 1> found = {Found{rate.value_or(0), rate.has_value()}};
    session_.world().broadcast(std::span<Found>(found), speaker());
    if (found[0].exists) rate_ = found[0].rate;
}

void LearningRateExchange::share(double rate) {
    broadcast(rate);
}

void LearningRateExchange::give_up() {
    broadcast({});
}

std::optional<double> LearningRateExchange::receive() {
    broadcast({});
    return rate_;
}

}  // namespace espalier
