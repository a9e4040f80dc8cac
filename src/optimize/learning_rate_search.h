#pragma once
/// `--ro-learning-rate auto`: the rate of regional optimisation, tried on the first block over a geometric grid and
/// scored on samples that the optimiser did not see.

#include "src/base/json.h"
#include "src/optimize/regional_optimizer.h"

#include <array>
#include <cstddef>
#include <limits>
#include <vector>

namespace espalier {

struct LearningRateCandidate {
    double learning_rate = 0;
    double held_out_error =
        std::numeric_limits<double>::infinity();  ///< relative output error; infinite when it diverged
};

struct LearningRateChoice {
    double learning_rate = 0;
    std::vector<LearningRateCandidate> candidates;  ///< the whole grid, ascending

    Json to_json() const;
    static LearningRateChoice from_json(const Json& json);
};

/// 3e-7, 1e-6, 3e-6 … 1e-3.
inline constexpr std::array<double, 8> learning_rate_grid = {3e-7, 1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3};

/// Tries the grid on the problem's block. `weights` hold the weights to begin with before and after; `mask` is scratch.
/// The smaller rate wins a tie. Throws InputError when there is only one sample, NonFiniteError when every rate
/// diverges. Collective.
LearningRateChoice search_learning_rate(const GroupContext& context, const PruneOptions& options,
                                        const RegionalProblem& problem, BlockWeights& weights, BlockTensor& mask,
                                        PhaseClock& clock);

}  // namespace espalier
