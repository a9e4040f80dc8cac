#pragma once
/// The schedule of regional optimisation (Wanda++ §4.2): RMSprop with one rate, on samples drawn anew in each round.

#include "src/optimize/optimizer_schedule.h"

#include <cstddef>
#include <vector>

namespace espalier {

class RegionalSchedule final : public OptimizerSchedule {
  public:
    /// Of one block; rounds draw from `population` (ascending sample indices). `options` outlive it.
    RegionalSchedule(const PruneOptions& options, std::size_t block, std::vector<std::size_t> population,
                     double learning_rate);

    static constexpr Rmsprop rule = {};
    std::size_t rounds() const override { return options_.ro.rounds; }
    std::size_t samples_of_step() const override { return options_.ro.batch; }
    std::vector<std::size_t> draw(std::size_t round) const override;
    OptimizerStep step(std::size_t taken) const override;

  private:
    const PruneOptions& options_;
    std::size_t block_;
    std::vector<std::size_t> population_;
    float learning_rate_;
};

}  // namespace espalier
