#include "src/optimize/learning_rate_search.h"

#include "src/base/error.h"
#include "src/method/output_error.h"
#include "src/samples/sample_split.h"

#include <cmath>

namespace espalier {

Json LearningRateChoice::to_json() const {
    Json list = Json::array();
    for (const LearningRateCandidate& candidate : candidates) {
        list.push_back(
            {{"learning_rate", candidate.learning_rate},
             {"held_out_error", std::isfinite(candidate.held_out_error) ? Json(candidate.held_out_error) : Json()}});
    }
    return {{"learning_rate", learning_rate}, {"candidates", list}};
}

LearningRateChoice LearningRateChoice::from_json(const Json& json) {
    LearningRateChoice choice;
    choice.learning_rate = json.at("learning_rate").get<double>();
    for (const Json& entry : json.at("candidates")) {
        LearningRateCandidate& candidate = choice.candidates.emplace_back();
        candidate.learning_rate = entry.at("learning_rate").get<double>();
        if (!entry.at("held_out_error").is_null()) candidate.held_out_error = entry.at("held_out_error").get<double>();
    }
    return choice;
}

LearningRateChoice search_learning_rate(const GroupContext& context, const PruneOptions& options,
                                        const RegionalProblem& problem, BlockWeights& weights, BlockTensor& mask,
                                        PhaseClock& clock) {
    const std::size_t samples = context.topology.samples();
    if (samples < 2) {
        throw InputError(
            "--ro-learning-rate auto needs at least 2 calibration samples, one of them held out; give a number");
    }
    const SampleSplit split = split_samples(samples);

    const BlockTensor start(context.device, context.layout, weights.dtype(), "first weights during the search");
    context.device.copy(weights.matrices.all(), start.all());
    PhaseClock unused = clock.another();
    RegionalOptimizer optimizer(context, options, problem, weights, mask, unused);
    LearningRateChoice choice;
    double best = std::numeric_limits<double>::infinity();
    for (const double rate : learning_rate_grid) {
        LearningRateCandidate candidate{rate};
        try {
            optimizer.run(split.training, rate, {});
            optimizer.finish(split.training);
            candidate.held_out_error = relative_output_error(context, problem.decoder, weights, problem.x,
                                                             problem.dense_outputs, split.held_out);
            if (!std::isfinite(candidate.held_out_error)) {
                candidate.held_out_error = std::numeric_limits<double>::infinity();
            }
        } catch (const NonFiniteError&) {
            // Thrown by all ranks together: this rate diverges, its score stays infinite.
        }
        if (candidate.held_out_error < best) {
            best = candidate.held_out_error;
            choice.learning_rate = rate;
        }
        choice.candidates.push_back(candidate);
        context.device.copy(start.all(), weights.matrices.all());
    }
    if (!std::isfinite(best)) {
        throw NonFiniteError("block " + std::to_string(problem.block) +
                             ": regional optimisation diverges at every learning rate from 3e-7 to 1e-3");
    }
    clock.mark("learning_rate_search");
    return choice;
}

}  // namespace espalier
