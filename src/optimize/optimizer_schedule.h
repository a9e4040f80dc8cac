#pragma once
/// What an optimiser that works in rounds on one block asks of its schedule: which samples, which steps. The rule of
/// the steps goes with it.

#include "kernels/optimizer_step.h"
#include "src/method/prune_options.h"

#include <cstddef>
#include <memory>
#include <vector>

namespace espalier {

class OptimizerSchedule {
  public:
    virtual ~OptimizerSchedule() = default;
    virtual std::size_t rounds() const = 0;
    /// Samples of a round in the order of its steps, `samples_of_step` for each; the last step may have fewer.
    virtual std::vector<std::size_t> draw(std::size_t round) const = 0;
    virtual std::size_t samples_of_step() const = 0;
    /// The step after `taken` others.
    virtual OptimizerStep step(std::size_t taken) const = 0;
};

/// The rule of the method's optimisation. What an optimiser keeps of a weight follows from it.
OptimizerRule rule_of(const PruneOptions& options);

/// The schedule of the method's optimisation of one block; rounds draw from `population` (ascending sample indices).
/// `options` outlive it.
std::unique_ptr<OptimizerSchedule> make_schedule(const PruneOptions& options, std::size_t block,
                                                 std::vector<std::size_t> population, double learning_rate);

}  // namespace espalier
