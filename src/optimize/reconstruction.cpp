#include "src/optimize/reconstruction.h"

#include "kernels/device_numbers.h"
#include "src/base/error.h"
#include "src/base/philox.h"
#include "src/model/weight_sizes.h"
#include "src/optimize/float32_products_scope.h"
#include "src/samples/sample_reader.h"

#include <algorithm>
#include <cmath>

namespace espalier {

namespace {

/// A round of its own among the draws of a block.
constexpr std::uint32_t draws_of_epochs = 0xE90C5000;

}  // namespace

Reconstruction::Reconstruction(const GroupContext& context, const PruneOptions& options,
                               const ReconstructionProblem& problem, BlockWeights& weights, const BlockTensor& mask,
                               PhaseClock& clock)
    : context_(context),
      options_(options),
      problem_(problem),
      clock_(clock),
      mask_(mask),
      split_(split_samples(context.topology.samples())),
      weights_(context, problem.partition, options.ro.type_of_passes(context.device, weights.dtype()),
               options.ro.compute == RegionalCompute::tf32, weights),
      state_(context, problem.partition, AdamW{}, weights_),
      sharing_(make_step_sharing(context, options, problem.block, state_)),
      best_(context.device, problem.partition, context.me(), "best weights") {
    const std::size_t rows = options.samples_of_pass() * context.tokens;
    const auto make = [&] {
        return context.device.make_tensor(DType::f32, rows, context.config.hidden_size, "samples of a pass");
    };
    output_ = make();
    loss_ = context.device.make_tensor(DType::f64, 1, 1, "numbers for the host");
    if (options.samples_of_pass() == 1) return;
    pass_x_ = make();
    pass_target_ = make();
}

std::vector<double> Reconstruction::sizes_of_weights() const {
    // The passes' weights: float32, or rounded to 16 bits.
    std::vector<TensorView> weights;
    std::size_t largest = 0;
    for (const LinearLayer layer : context_.layout.linear_layers()) {
        weights.push_back(weights_.of_passes().matrices.matrix(layer));
        largest = std::max(largest, weights.back().size());
    }
    const Tensor scratch = weights_.of_passes().dtype() == DType::f32
                               ? Tensor()
                               : context_.device.make_tensor(DType::f32, 1, largest, "weights to measure");
    return sizes_of_nonzero(context_.device, weights, scratch);
}

std::vector<double> Reconstruction::run() {
    const DeviceRange range(context_.device, "reconstruction");
    const Float32ProductsScope products(context_.device, options_.ro.compute);
    state_.reset();
    state_.set_relative_rates(sizes_of_weights());
    std::vector<double> errors = {held_out_error()};
    double best = errors.front();
    keep_best();
    const std::size_t batch = std::min(options_.reconstruction.batch, split_.training.size());
    const std::size_t of_epoch = (split_.training.size() + batch - 1) / batch;
    steps_ = of_epoch * options_.reconstruction.epochs;
    bool is_best = true;
    for (std::size_t epoch = 0; epoch < options_.reconstruction.epochs; ++epoch) {
        train_epoch(epoch, of_epoch);
        errors.push_back(held_out_error());
        is_best = errors.back() < best;
        if (is_best) {
            best = errors.back();
            keep_best();
        }
        clock_.mark("optimise");
        problem_.on_idle();
    }
    if (!is_best) restore_best();
    weights_.store(options_.output_dtype);
    return errors;
}

void Reconstruction::train_epoch(std::size_t epoch, std::size_t steps_of_epoch) {
    const std::vector<std::size_t>& training = split_.training;
    std::vector<std::size_t> order =
        draw_without_replacement(options_.seed, static_cast<std::uint32_t>(problem_.block),
                                 draws_of_epochs + static_cast<std::uint32_t>(epoch), training.size(), training.size());
    for (std::size_t& sample : order) sample = training[sample];
    const std::size_t batch = std::min(options_.reconstruction.batch, training.size());
    const std::size_t at_once = options_.samples_of_pass();
    DrawnSamples samples(context_, problem_.x, problem_.targets, std::move(order), batch, sharing_->assignment());
    for (std::size_t step = 0; step < steps_of_epoch; ++step) {
        const std::vector<StepSample> mine = samples.take(step);
        std::vector<std::size_t> passes;  // of the ranks
        for (const std::size_t offset : samples.offsets_of_step(step))
            passes.push_back((offset + at_once - 1) / at_once);
        const StepPass pass = [&](std::size_t index, WeightGradientSink& sink) {
            const std::size_t first = index * at_once;
            const Pass of_samples = gather(mine, first, std::min(at_once, mine.size() - first));
            const TensorView output = output_.view().row_range(0, of_samples.x.rows);
            problem_.decoder.forward(weights_.of_passes(), of_samples.x, output, of_samples.segments);
            apply_loss(of_samples.target, output, loss_);
            problem_.decoder.backward(weights_.of_passes(), output, sink);
        };
        const ReconstructionOptions& chosen = options_.reconstruction;
        const double rate = chosen.learning_rate * share_of_rate(steps_taken_, steps_, chosen.warm_up);
        ++steps_taken_;
        sharing_->take({AdamW{}, static_cast<float>(rate), steps_taken_}, passes, &mask_, pass);
    }
    sharing_->settle();
}

Reconstruction::Pass Reconstruction::gather(const std::vector<StepSample>& samples, std::size_t first,
                                            std::size_t count) const {
    Pass pass;
    pass.segments.assign(count, RowSegment{context_.tokens});
    const auto target = [&](const StepSample& sample) {
        return problem_.targets.restored(sample.kept_output, sample.x);
    };
    if (count == 1) {
        pass.x = samples[first].x;
        pass.target = target(samples[first]);
        return pass;
    }
    pass.x = pass_x_.view().row_range(0, count * context_.tokens);
    pass.target = pass_target_.view().row_range(0, count * context_.tokens);
    for (std::size_t i = 0; i < count; ++i) {
        const std::size_t begin = i * context_.tokens, end = begin + context_.tokens;
        context_.device.copy(samples[first + i].x, pass.x.row_range(begin, end));
        context_.device.copy(target(samples[first + i]), pass.target.row_range(begin, end));
    }
    return pass;
}

void Reconstruction::apply_loss(TensorView target, TensorView output, TensorView loss) const {
    if (options_.reconstruction.loss == ReconstructionLoss::token)
        return context_.device.relative_error_gradient(target, output, loss);
    context_.device.squared_error(output, target, loss);
    context_.device.squared_error_gradient(target, output);
}

double Reconstruction::held_out_error() {
    const std::vector<std::size_t> mine = context_.mine_of(split_.held_out);
    const bool first = held_out_size_ == 0;
    const DeviceSums losses(context_.device, mine.size()), squares(context_.device, mine.size());
    SampleReader inputs(context_.device, problem_.x, mine), kept(context_.device, problem_.targets.kept(), mine);
    const TensorView output = output_.view().row_range(0, context_.tokens);
    for (std::size_t i = 0; i < mine.size(); ++i) {
        const TensorView input = inputs.next();
        problem_.decoder.forward(weights_.of_passes(), input, output, nullptr);
        const TensorView target = problem_.targets.restored(kept.next(), input);
        apply_loss(target, output, losses.at(i));
        if (first) context_.device.square_sum(target, squares.at(i));
    }
    if (first) {
        const bool by_token = options_.reconstruction.loss == ReconstructionLoss::token;
        const double squares_of_all = sum_in_sample_order(context_, split_.held_out, squares.read());
        held_out_size_ = by_token ? static_cast<double>(split_.held_out.size() * context_.tokens) : squares_of_all;
    }
    const double loss = sum_in_sample_order(context_, split_.held_out, losses.read());
    if (!std::isfinite(loss)) {
        throw NonFiniteError("block " + std::to_string(problem_.block) +
                             ": the outputs are not finite while it is reconstructed; a smaller --learning-rate may "
                             "help");
    }
    return held_out_size_ > 0 ? loss / held_out_size_ : loss;
}

void Reconstruction::keep_best() const {
    for (const RowSlice& slice : problem_.partition.slices_of(context_.me())) {
        const TensorView master = weights_.master(slice);
        context_.device.copy(master, best_.slice(slice, master.columns));
    }
}

void Reconstruction::restore_best() {
    for (const RowSlice& slice : problem_.partition.slices_of(context_.me())) {
        const TensorView master = weights_.master(slice);
        context_.device.copy(best_.slice(slice, master.columns), master);
    }
    weights_.share();
}

}  // namespace espalier
