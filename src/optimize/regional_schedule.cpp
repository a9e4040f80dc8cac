#include "src/optimize/regional_schedule.h"

#include "src/base/philox.h"

#include <algorithm>
#include <cstdint>
#include <utility>

namespace espalier {

RegionalSchedule::RegionalSchedule(const PruneOptions& options, std::size_t block, std::vector<std::size_t> population,
                                   double learning_rate)
    : options_(options),
      block_(block),
      population_(std::move(population)),
      learning_rate_(static_cast<float>(options.ro.scaled_rate(learning_rate))) {}

std::vector<std::size_t> RegionalSchedule::draw(std::size_t round) const {
    const std::size_t count = std::min(options_.ro.samples, population_.size());
    std::vector<std::size_t> draws =
        draw_without_replacement(options_.seed, static_cast<std::uint32_t>(block_), static_cast<std::uint32_t>(round),
                                 count, population_.size());
    for (std::size_t& draw : draws) draw = population_[draw];
    return draws;
}

OptimizerStep RegionalSchedule::step(std::size_t taken) const {
    return {rule, learning_rate_, taken + 1};
}

}  // namespace espalier
