#include "src/optimize/optimizer_schedule.h"

#include "src/base/error.h"
#include "src/optimize/regional_schedule.h"

#include <utility>

namespace espalier {

OptimizerRule rule_of(const PruneOptions& options) {
    switch (options.method.optimization) {
        case Optimization::regional:
            return RegionalSchedule::rule;
        case Optimization::none:
        case Optimization::reconstruction:
            break;
    }
    throw BugError("internal error: a method without regional optimisation has no rule");
}

std::unique_ptr<OptimizerSchedule> make_schedule(const PruneOptions& options, std::size_t block,
                                                 std::vector<std::size_t> population, double learning_rate) {
    switch (options.method.optimization) {
        case Optimization::regional:
            return std::make_unique<RegionalSchedule>(options, block, std::move(population), learning_rate);
        case Optimization::none:
        case Optimization::reconstruction:
            break;
    }
    throw BugError("internal error: a method without regional optimisation has no schedule");
}

}  // namespace espalier
