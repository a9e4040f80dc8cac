#include "src/optimize/regional_optimizer.h"

#include "src/base/philox.h"
#include "src/samples/sample_reader.h"

#include <algorithm>
#include <functional>
#include <optional>

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
                  const OptimizedWeights& weights, const BlockTensor* held_mask)
        : device_(device),
          step_(step),
          layout_(layout),
          square_average_(square_average),
          weights_(weights),
          held_mask_(held_mask) {}

    void consume(LinearLayer layer, std::size_t row_begin, TensorView panel) override {
        const MatrixShape& matrix = layout_.matrix(layer);
        const std::size_t row_end = row_begin + panel.rows;
        const RowSlice slice{layer, row_begin, row_end};
        const TensorView mask =
            held_mask_ == nullptr ? TensorView{} : held_mask_->matrix(layer).row_range(row_begin, row_end);
        device_.rmsprop_step(step_, panel, mask, square_average_.slice(slice, matrix.columns), weights_.master(slice),
                             weights_.rounded(slice));
    }

  private:
    Device& device_;
    RmspropStep step_;
    const BlockLayout& layout_;
    const PartTensor& square_average_;
    const OptimizedWeights& weights_;
    const BlockTensor* held_mask_;
};

/// Larger mini-batches: one leaf a sample in each matrix's ordered sum. With the last sample of this rank, a matrix
/// starts its way to the ranks that own its rows while the backward pass goes on with the next; when that one is on its
/// way, the first is stepped, and its new rows go to all ranks meanwhile. The backward pass is done with a matrix once
/// it hands out its gradient, so the weights may change under it.
class MiniBatchStep final : public WeightGradientSink {
  public:
    /// `step` finishes the sum of a matrix that is on its way, and steps it.
    MiniBatchStep(Device& device, const BlockLayout& layout, const WeightPartition& partition,
                  std::vector<OrderedSum>& sums, std::function<void(LinearLayer)> step)
        : device_(device), layout_(layout), partition_(partition), sums_(sums), step_(std::move(step)) {}

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
        if (last_) reduce(layer);
    }
    /// All ranks call it for all matrices in the backward pass's order, those without samples too.
    void reduce(LinearLayer layer) {
        sums_[index_of(layer)].start_reduce(partition_.offsets_in(layer));
        if (on_its_way_) step_(*on_its_way_);
        on_its_way_ = layer;
    }
    void finish() {
        if (on_its_way_) step_(*on_its_way_);
        on_its_way_.reset();
    }

  private:
    Device& device_;
    const BlockLayout& layout_;
    const WeightPartition& partition_;
    std::vector<OrderedSum>& sums_;
    std::function<void(LinearLayer)> step_;
    std::array<TensorView, linear_layers> leaf_;
    std::optional<LinearLayer> on_its_way_;
    bool last_ = false;
};

}  // namespace

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
      square_average_(context.device, problem.masker.partition(), context.me()),
      output_(context.device.make_tensor(DType::f32, context.tokens, context.config.hidden_size)) {
    if (options.ro.batch > 1) gradient_ = PartTensor(context.device, problem.masker.partition(), context.me());
}

InputNorms RegionalOptimizer::current_norms(const std::vector<std::size_t>& samples) {
    const DeviceRange range(context_.device, "statistics");
    const BlockWeights& weights = weights_.rounded_for_measuring();
    const std::vector<std::size_t> mine = context_.mine_of(samples);
    SampleReader inputs(context_.device, problem_.x, mine);
    for (const std::size_t sample : mine) {
        norms_.begin_sample(sample);
        problem_.decoder.observe_inputs(weights, inputs.next(), LinearInput::mlp_activation, norms_);
    }
    return norms_.gather(samples, options_.input_norm, problem_.block);
}

void RegionalOptimizer::apply_mask(const InputNorms& norms) {
    problem_.masker.mask_part(
        norms, problem_.block, [this](const RowSlice& slice) { return weights_.master(slice); }, mask_);
    weights_.share();
}

std::vector<std::vector<std::size_t>> RegionalOptimizer::run(const std::vector<std::size_t>& population,
                                                             double learning_rate,
                                                             const AfterFirstMask& after_first_mask) {
    const Float32ProductsScope products(context_.device, options_.ro.compute);
    step_.learning_rate = static_cast<float>(options_.ro.scaled_rate(learning_rate));
    context_.device.fill_zero(square_average_.all());
    weights_.load();
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
                                     : current_norms(ascending);
        clock_.mark("statistics");
        apply_mask(norms);
        clock_.mark("mask");
        if (round == 0 && after_first_mask) after_first_mask(ascending);
        optimise(draws);
        clock_.mark("optimise");
        problem_.on_idle();
        all_draws.push_back(std::move(draws));
    }
    return all_draws;
}

void RegionalOptimizer::finish(const std::vector<std::size_t>& samples) {
    const Float32ProductsScope products(context_.device, options_.ro.compute);
    const InputNorms norms = current_norms(samples);
    clock_.mark("statistics");
    apply_mask(norms);
    weights_.store(options_.output_dtype);
}

void RegionalOptimizer::optimise(const std::vector<std::size_t>& draws) {
    const DeviceRange range(context_.device, "optimise");
    const bool alone = options_.ro.batch == 1;
    const auto owner = static_cast<std::size_t>(context_.block_group.owner_of(problem_.block));
    DrawnSamples samples(
        context_, problem_.x, problem_.dense_outputs, draws, options_.ro.batch,
        alone ? StepAssignment::all_on(context_.ranks(), owner) : StepAssignment::spread(context_.ranks()));
    for (std::size_t step = 0; step < samples.steps(); ++step) {
        const std::vector<StepSample> mine = samples.take(step);
        if (alone)
            step_alone(mine);
        else
            step_together(mine, samples.offsets_of_step(step));
    }
    if (alone) weights_.share();
}

void RegionalOptimizer::output_gradient(const StepSample& sample) {
    problem_.decoder.forward(weights_.of_passes(), sample.x, output_, nullptr);
    context_.device.squared_error_gradient(problem_.dense_outputs.restored(sample.kept_output, sample.x), output_);
}

void RegionalOptimizer::step_alone(const std::vector<StepSample>& samples) {
    ImmediateStep sink(context_.device, step_, context_.layout, square_average_, weights_,
                       options_.ro.hold_mask ? &mask_ : nullptr);
    for (const StepSample& sample : samples) {
        output_gradient(sample);
        problem_.decoder.backward(weights_.of_passes(), output_, sink);
    }
}

void RegionalOptimizer::step_together(const std::vector<StepSample>& samples, const std::vector<std::size_t>& offsets) {
    Device& device = context_.device;
    const WeightPartition& partition = problem_.masker.partition();
    std::vector<OrderedSum>& sums = sums_[offsets.back()];
    if (sums.empty()) {
        for (const MatrixShape& matrix : context_.layout.matrices()) {
            sums.emplace_back(device, context_.group, matrix.size(), offsets);
        }
    }
    std::vector<std::unique_ptr<Exchange>> gathers;
    MiniBatchStep sink(device, context_.layout, partition, sums, [&](LinearLayer layer) {
        step_part(layer, partition.offsets_in(layer), sums[index_of(layer)]);
        gathers.push_back(weights_.start_sharing(layer));
    });
    for (std::size_t i = 0; i < samples.size(); ++i) {
        output_gradient(samples[i]);
        sink.begin_sample(i + 1 == samples.size());
        problem_.decoder.backward(weights_.of_passes(), output_, sink);
    }
    if (samples.empty()) {
        for (const LinearLayer layer : backward_order) sink.reduce(layer);
    }
    sink.finish();
    for (const auto& gather : gathers) gather->finish();
}

void RegionalOptimizer::step_part(LinearLayer layer, const PartOffsets& parts, OrderedSum& sum) {
    const MatrixShape& matrix = context_.layout.matrix(layer);
    const std::size_t begin = parts[context_.me()], end = parts[context_.me() + 1];
    const RowSlice slice{layer, begin / matrix.columns, end / matrix.columns};
    if (begin == end) {
        sum.finish_reduce({gradient_.all().data, DType::f32, 1, 0});
        return;
    }
    const TensorView gradient = gradient_.slice(slice, matrix.columns);
    sum.finish_reduce(gradient.reshaped(1, gradient.size()));
    const TensorView held =
        options_.ro.hold_mask ? mask_.matrix(layer).row_range(slice.row_begin, slice.row_end) : TensorView{};
    context_.device.rmsprop_step(step_, gradient, held, square_average_.slice(slice, matrix.columns),
                                 weights_.master(slice), weights_.rounded(slice));
}

}  // namespace espalier
