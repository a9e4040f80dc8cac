#include "src/optimize/regional_optimizer.h"

#include "src/samples/sample_reader.h"

#include <algorithm>

namespace espalier {

RegionalOptimizer::RegionalOptimizer(const GroupContext& context, const PruneOptions& options,
                                     const RegionalProblem& problem, BlockWeights& weights, BlockTensor& mask,
                                     PhaseClock& clock)
    : context_(context),
      options_(options),
      problem_(problem),
      clock_(clock),
      weights_(context, problem.masker.partition(), options.ro.type_of_passes(context.device, weights.dtype()),
               options.ro.compute == RegionalCompute::tf32, weights),
      mask_(mask),
      norms_(context),
      state_(context, problem.masker.partition(), rule_of(options), weights_),
      sharing_(make_step_sharing(context, options, problem.block, state_)),
      output_(
          context.device.make_tensor(DType::f32, context.tokens, context.config.hidden_size, "outputs of a sample")) {}

InputNorms RegionalOptimizer::current_norms(const std::vector<std::size_t>& samples) {
    const DeviceRange range(context_.device, "statistics");
    const BlockWeights& weights = weights_.rounded_for_measuring();
    const std::vector<std::size_t> mine = context_.mine_of(samples);
    SampleReader inputs(context_.device, problem_.x, mine);
    for (const std::size_t sample : mine) {
        norms_.begin_sample(sample);
        problem_.decoder.observe_inputs(weights, inputs.next(), context_.layout.last_input(), norms_);
    }
    return norms_.gather(samples, options_.input_norm, problem_.block);
}

void RegionalOptimizer::apply_mask(const InputNorms& norms) {
    problem_.masker.mask_part(
        norms, problem_.block, [this](const RowSlice& slice) { return weights_.master(slice); }, mask_);
    weights_.share();
}

void RegionalOptimizer::begin_round(std::size_t round, const std::vector<std::size_t>& drawn) {
    if (round == 0 && problem_.first_mask != nullptr) {
        context_.device.copy(problem_.first_mask->all(), mask_.all());
        return;
    }
    if (options_.method.chooses_mask_once()) return;
    // The first round's weights are the dense ones, which every sample has been through already.
    const InputNorms norms =
        round == 0 ? problem_.dense_norms.gather(drawn, options_.input_norm, problem_.block) : current_norms(drawn);
    clock_.mark("statistics");
    apply_mask(norms);
    clock_.mark("mask");
}

std::vector<std::vector<std::size_t>> RegionalOptimizer::run(const std::vector<std::size_t>& population,
                                                             double learning_rate,
                                                             const AfterFirstMask& after_first_mask) {
    const Float32ProductsScope products(context_.device, options_.ro.compute);
    const auto schedule = make_schedule(options_, problem_.block, population, learning_rate);
    state_.reset();
    steps_taken_ = 0;
    std::vector<std::vector<std::size_t>> all_draws;
    for (std::size_t round = 0; round < schedule->rounds(); ++round) {
        const std::vector<std::size_t> draws = schedule->draw(round);
        std::vector<std::size_t> ascending = draws;
        std::sort(ascending.begin(), ascending.end());
        begin_round(round, ascending);
        if (round == 0 && after_first_mask) after_first_mask(ascending);
        optimise(*schedule, draws);
        clock_.mark("optimise");
        problem_.on_idle();
        all_draws.push_back(draws);
    }
    return all_draws;
}

void RegionalOptimizer::finish(const std::vector<std::size_t>& samples) {
    const Float32ProductsScope products(context_.device, options_.ro.compute);
    if (!options_.method.chooses_mask_once()) {
        const InputNorms norms = current_norms(samples);
        clock_.mark("statistics");
        apply_mask(norms);
    }
    weights_.store(options_.output_dtype);
}

void RegionalOptimizer::optimise(const OptimizerSchedule& schedule, const std::vector<std::size_t>& draws) {
    const DeviceRange range(context_.device, "optimise");
    DrawnSamples samples(context_, problem_.x, problem_.dense_outputs, draws, schedule.samples_of_step(),
                         sharing_->assignment());
    for (std::size_t step = 0; step < samples.steps(); ++step) {
        const std::vector<StepSample> mine = samples.take(step);
        const StepPass pass = [&](std::size_t index, WeightGradientSink& sink) {
            const StepSample& sample = mine[index];
            problem_.decoder.forward(weights_.of_passes(), sample.x, output_, nullptr);
            context_.device.squared_error_gradient(problem_.dense_outputs.restored(sample.kept_output, sample.x),
                                                   output_);
            problem_.decoder.backward(weights_.of_passes(), output_, sink);
        };
        sharing_->take(schedule.step(steps_taken_++), samples.offsets_of_step(step),
                       options_.holds_mask() ? &mask_ : nullptr, pass);
    }
    sharing_->settle();
}

}  // namespace espalier
