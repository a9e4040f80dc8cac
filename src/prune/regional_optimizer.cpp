#include "src/prune/regional_optimizer.h"

#include "src/base/philox.h"

#include <algorithm>

namespace espalier {

namespace {

/// Order in which a backward pass finishes its matrices; idle ranks start their exchanges in the same order.
constexpr std::array<LinearLayer, linear_layers> backward_order = {
    LinearLayer::down_proj, LinearLayer::up_proj, LinearLayer::gate_proj, LinearLayer::o_proj,
    LinearLayer::v_proj,    LinearLayer::k_proj,  LinearLayer::q_proj};

/// Mini-batches of one sample: the step is applied to each gradient panel while it is in the cache.
class ImmediateStep final : public WeightGradientSink {
  public:
    ImmediateStep(Device& device, const RmspropStep& step, const BlockLayout& layout, const PartTensor& square_average,
                  BlockWeights& weights, const BlockTensor* held_mask)
        : device_(device),
          step_(step),
          layout_(layout),
          square_average_(square_average),
          weights_(weights),
          held_mask_(held_mask) {}

    void consume(LinearLayer layer, std::size_t row_begin, TensorView panel) override {
        const MatrixShape& matrix = layout_.matrix(layer);
        const std::size_t row_end = row_begin + panel.rows;
        const TensorView v = square_average_.slice(
            {layer, row_begin, row_end, matrix.offset + row_begin * matrix.columns}, matrix.columns);
        const TensorView mask =
            held_mask_ == nullptr ? TensorView{} : held_mask_->matrix(layer).row_range(row_begin, row_end);
        device_.rmsprop_step(step_, panel, mask, v, weights_.matrices.matrix(layer).row_range(row_begin, row_end));
    }

  private:
    Device& device_;
    RmspropStep step_;
    const BlockLayout& layout_;
    const PartTensor& square_average_;
    BlockWeights& weights_;
    const BlockTensor* held_mask_;
};

/// Larger mini-batches: one leaf a sample in each matrix's ordered sum. With the last sample of this rank, a matrix
/// starts its way to the ranks that own its rows while the backward pass goes on.
class MiniBatchGradient final : public WeightGradientSink {
  public:
    MiniBatchGradient(Device& device, const BlockLayout& layout, const WeightPartition& partition,
                      std::vector<OrderedSum>& sums)
        : device_(device), layout_(layout), partition_(partition), sums_(sums) {}

    void begin_sample(bool last) {
        last_ = last;
        for (const LinearLayer layer : all_linear_layers) {
            const MatrixShape& matrix = layout_.matrix(layer);
            leaf_[index_of(layer)] =
                sums_[index_of(layer)].begin_undefined_leaf().reshaped(matrix.rows, matrix.columns);
        }
    }
    void consume(LinearLayer layer, std::size_t row_begin, TensorView panel) override {
        device_.copy(panel, leaf_[index_of(layer)].row_range(row_begin, row_begin + panel.rows));
    }
    void finished(LinearLayer layer) override {
        sums_[index_of(layer)].end_leaf();
        if (last_) start_reduce(layer);
    }
    void start_reduce(LinearLayer layer) {
        sums_[index_of(layer)].start_reduce(partition_.offsets_in(layout_.matrix(layer)));
    }

  private:
    Device& device_;
    const BlockLayout& layout_;
    const WeightPartition& partition_;
    std::vector<OrderedSum>& sums_;
    std::array<TensorView, linear_layers> leaf_;
    bool last_ = false;
};

}  // namespace

RegionalOptimizer::RegionalOptimizer(const GroupContext& context, const PruneOptions& options,
                                     const RegionalProblem& problem, PhaseClock& clock)
    : context_(context),
      options_(options),
      problem_(problem),
      clock_(clock),
      norms_(context),
      square_average_(context.device, problem.masker.partition(), context.me()),
      output_(context.device.make_tensor(DType::f32, context.tokens, context.config.hidden_size)) {
    if (options.ro.batch > 1) gradient_ = PartTensor(context.device, problem.masker.partition(), context.me());
}

InputNorms RegionalOptimizer::current_norms(const std::vector<std::size_t>& samples, const BlockWeights& weights) {
    for (const std::size_t sample : samples) {
        if (!context_.my_samples().contains(sample)) continue;
        norms_.begin_sample(sample);
        problem_.decoder.observe_inputs(weights, problem_.x.sample(sample), LinearInput::mlp_activation, norms_);
    }
    return norms_.gather(samples, options_.input_norm, problem_.block);
}

std::vector<std::vector<std::size_t>> RegionalOptimizer::run(const std::vector<std::size_t>& population,
                                                             double learning_rate, BlockWeights& weights,
                                                             BlockTensor& mask,
                                                             const std::function<void()>& after_first_mask) {
    step_.learning_rate = static_cast<float>(options_.ro.scaled_rate(learning_rate));
    context_.device.fill_zero(square_average_.all());
    const std::size_t count = std::min(options_.ro.samples, population.size());
    std::vector<std::vector<std::size_t>> all_draws;
    for (std::size_t round = 0; round < options_.ro.rounds; ++round) {
        std::vector<std::size_t> draws =
            draw_without_replacement(options_.seed, static_cast<std::uint32_t>(problem_.block),
                                     static_cast<std::uint32_t>(round), count, population.size());
        for (std::size_t& draw : draws) draw = population[draw];
        std::vector<std::size_t> ascending = draws;
        std::sort(ascending.begin(), ascending.end());
        // The first round's weights are the dense ones, which every sample has been through already.
        const InputNorms norms = round == 0
                                     ? problem_.dense_norms.gather(ascending, options_.input_norm, problem_.block)
                                     : current_norms(ascending, weights);
        clock_.mark("statistics");
        problem_.masker.apply(norms, problem_.block, weights, mask);
        clock_.mark("mask");
        if (round == 0 && after_first_mask) after_first_mask();
        optimise(draws, weights, mask);
        clock_.mark("optimise");
        problem_.on_idle();
        all_draws.push_back(std::move(draws));
    }
    return all_draws;
}

void RegionalOptimizer::optimise(const std::vector<std::size_t>& draws, BlockWeights& weights,
                                 const BlockTensor& mask) {
    const bool alone = options_.ro.batch == 1;
    const auto owner = static_cast<std::size_t>(context_.block_group.owner_of(problem_.block));
    DrawnSamples samples(
        context_, problem_.x, problem_.dense_outputs, draws, options_.ro.batch,
        alone ? StepAssignment::all_on(context_.ranks(), owner) : StepAssignment::spread(context_.ranks()));
    for (std::size_t step = 0; step < samples.steps(); ++step) {
        const std::vector<StepSample> mine = samples.take(step);
        if (alone)
            step_alone(mine, weights, mask);
        else
            step_together(mine, samples.offsets_of_step(step), weights, mask);
    }
    if (alone) problem_.masker.gather_weights(weights);
}

void RegionalOptimizer::output_gradient(const StepSample& sample, const BlockWeights& weights) {
    problem_.decoder.forward(weights, sample.x, output_, nullptr);
    context_.device.squared_error_gradient(sample.dense_output, output_);
}

void RegionalOptimizer::step_alone(const std::vector<StepSample>& samples, BlockWeights& weights,
                                   const BlockTensor& mask) {
    ImmediateStep sink(context_.device, step_, context_.layout, square_average_, weights,
                       options_.ro.hold_mask ? &mask : nullptr);
    for (const StepSample& sample : samples) {
        output_gradient(sample, weights);
        problem_.decoder.backward(weights, output_, sink);
    }
}

void RegionalOptimizer::step_together(const std::vector<StepSample>& samples, const std::vector<std::size_t>& offsets,
                                      BlockWeights& weights, const BlockTensor& mask) {
    Device& device = context_.device;
    const WeightPartition& partition = problem_.masker.partition();
    std::vector<OrderedSum>& sums = sums_[offsets.back()];
    if (sums.empty()) {
        for (const MatrixShape& matrix : context_.layout.matrices()) {
            sums.emplace_back(device, context_.group, matrix.size(), offsets);
        }
    }
    MiniBatchGradient sink(device, context_.layout, partition, sums);
    for (std::size_t i = 0; i < samples.size(); ++i) {
        output_gradient(samples[i], weights);
        sink.begin_sample(i + 1 == samples.size());
        problem_.decoder.backward(weights, output_, sink);
    }
    if (samples.empty()) {
        for (const LinearLayer layer : backward_order) sink.start_reduce(layer);
    }
    // The stepped rows of a matrix travel to the other ranks while the next matrix is summed and stepped.
    std::vector<std::unique_ptr<Exchange>> gathers;
    for (const LinearLayer layer : backward_order) {
        const MatrixShape& matrix = context_.layout.matrix(layer);
        const PartOffsets parts = partition.offsets_in(matrix);
        step_part(layer, parts, sums[index_of(layer)], weights, mask);
        const TensorView weight = weights.matrices.matrix(layer);
        gathers.push_back(context_.group.start_all_gather(std::span<float>(weight.floats(), weight.size()), parts));
    }
    for (const auto& gather : gathers) gather->finish();
}

void RegionalOptimizer::step_part(LinearLayer layer, const PartOffsets& parts, OrderedSum& sum, BlockWeights& weights,
                                  const BlockTensor& mask) {
    const MatrixShape& matrix = context_.layout.matrix(layer);
    const std::size_t begin = parts[context_.me()], end = parts[context_.me() + 1];
    const RowSlice slice{layer, begin / matrix.columns, end / matrix.columns, matrix.offset + begin};
    if (begin == end) {
        sum.finish_reduce({gradient_.all().data, DType::f32, 1, 0});
        return;
    }
    const TensorView gradient = gradient_.slice(slice, matrix.columns);
    sum.finish_reduce(gradient.reshaped(1, gradient.size()));
    const TensorView held =
        options_.ro.hold_mask ? mask.matrix(layer).row_range(slice.row_begin, slice.row_end) : TensorView{};
    context_.device.rmsprop_step(step_, gradient, held, square_average_.slice(slice, matrix.columns),
                                 weights.matrices.matrix(layer).row_range(slice.row_begin, slice.row_end));
}

}  // namespace espalier
