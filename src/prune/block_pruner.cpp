#include "src/prune/block_pruner.h"

#include "kernels/device_numbers.h"
#include "src/base/error.h"
#include "src/method/block_masker.h"
#include "src/method/output_error.h"
#include "src/method/regional_gradient.h"
#include "src/method/sparsegpt.h"
#include "src/optimize/reconstruction.h"
#include "src/optimize/regional_optimizer.h"
#include "src/samples/pass_through.h"
#include "src/samples/sample_reader.h"
#include "src/samples/sample_split.h"
#include "src/weights/model_source.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace espalier {

/// What one pass of all samples through the dense block leaves.
struct BlockPruner::DensePass {
    WeightPartition partition;             ///< of scores and optimiser state
    DenseOutputs outputs;                  ///< f0(X_n)
    InputNormCollector norms;              ///< square sums by sample
    PartTensor gradient;                   ///< G, for the methods that use it
    std::vector<double> square_sums = {};  ///< ||f0(X_n)||^2 of this rank's samples
    double output_square_sum = 0;          ///< their sum over all samples
};

BlockPruner::BlockPruner(const GroupContext& context, const PruneOptions& options, DecoderBlock& decoder,
                         PhaseClock& clock)
    : context_(context),
      options_(options),
      decoder_(decoder),
      clock_(clock),
      all_samples_(context.topology.samples()),
      learning_rate_(options.ro.learning_rate) {
    std::iota(all_samples_.begin(), all_samples_.end(), std::size_t{0});
}

void BlockPruner::begin(const HiddenStates& x) {
    if (!options_.keeps_dense_stream()) return;
    dense_x_.emplace(context_.device, x.samples(), x.tokens(), x.all().columns, x.place(), "dense hidden states");
    SampleReader states(context_.device, x, all_samples_of(x));
    for (std::size_t n = x.samples().begin; n < x.samples().end; ++n) {
        const TensorView state = states.next();
        if (dense_x_->on_host())
            dense_x_->write_back(n, state);
        else
            context_.device.copy(state, dense_x_->sample(n));
    }
}

void BlockPruner::propagate_dense(const BlockWeights& weights) {
    if (!dense_x_) return;
    pass_through(context_.device, decoder_, weights, *dense_x_);
    clock_.mark("propagate");
}

PrunedBlock BlockPruner::prune(std::size_t block, BlockWeights& weights, HiddenStates& x) {
    const DeviceRange range(context_.device, ("block " + std::to_string(block)).c_str());
    context_.device.reset_memory_peak();
    const double flops_before = context_.device.flops();
    PrunedBlock result;
    result.report.block = block;
    result.mask = BlockTensor(context_.device, context_.layout, DType::u8, "mask");

    const DensePass dense = run_dense_pass(block, weights, x);
    on_idle_();
    const Method& method = options_.method;
    if (method.compensates()) compensate(dense, x, weights, result);
    if (method.optimises_regionally()) optimise_regionally(dense, x, weights, result);
    if (method.only_removes() || (method.reconstructs() && !method.compensates())) prune_once(dense, weights, result);
    if (method.reconstructs()) reconstruct(dense, x, weights, result);
    if (weights.dtype() == DType::f32) context_.device.round_to(options_.output_dtype, weights.matrices.all());
    refuse_overflow(context_.device, context_.layout, options_.output_dtype, block, weights);
    on_idle_();
    finish(dense, weights, x, result.report);
    if (!options_.method.optimises()) {
        result.report.error_after_first_mask = result.report.error_final;
    } else if (options_.method.optimises_regionally() &&
               result.report.error_final_first_draw > result.report.error_after_first_mask) {
        result.sentences.push_back(
            "warning: block " + std::to_string(block) +
            ": regional optimisation left a larger output error than the first mask; the learning rate "
            "may be too large (--ro-learning-rate auto finds one)");
    }
    add_group_totals(context_.device.flops() - flops_before, result.report);
    return result;
}

BlockPruner::DensePass BlockPruner::run_dense_pass(std::size_t block, const BlockWeights& weights,
                                                   const HiddenStates& x) {
    const DeviceRange range(context_.device, "dense pass");
    DensePass pass{partition_of_steps(context_, options_, block),
                   DenseOutputs(context_.device, context_.my_samples(), context_.tokens, context_.config.hidden_size,
                                weights.dtype(), x.place()),
                   InputNormCollector(context_),
                   {}};
    const bool with_gradient = options_.method.uses_regional_gradient();
    std::optional<RegionalGradient> gradient;
    if (with_gradient) gradient.emplace(context_, weights.dtype());
    const Tensor direction =
        context_.device.make_tensor(DType::f32, context_.tokens, context_.config.hidden_size, "outputs of a sample");
    const DeviceSums squares(context_.device, x.samples().size());
    const IndexRange shards = context_.topology.shards_of(context_.block_group, context_.me());
    SampleReader inputs(context_.device, x, all_samples_of(x));
    std::optional<SampleReader> dense_inputs;
    if (dense_x_) dense_inputs.emplace(context_.device, *dense_x_, all_samples_of(*dense_x_));
    for (std::size_t shard = shards.begin; shard < shards.end; ++shard) {
        if (with_gradient) gradient->begin_shard();
        const IndexRange samples = context_.topology.samples_of_shard(shard);
        for (std::size_t n = samples.begin; n < samples.end; ++n) {
            pass.norms.begin_sample(n);
            const TensorView output = pass.outputs.place_of(n), square_sum = squares.at(n - x.samples().begin);
            const TensorView input = inputs.next();
            // With a dense stream this pass is for the norms alone, which SparseGPT's own choice does not ask for.
            if (!dense_inputs || with_gradient)
                decoder_.forward(weights, input, output, &pass.norms);
            else if (options_.method.score != Score::sparsegpt)
                decoder_.observe_inputs(weights, input, context_.layout.last_input(), pass.norms);
            if (with_gradient) {
                context_.device.square_sum(output, square_sum);
                context_.device.frobenius_direction(output, square_sum, gradient->scale(), direction);
                decoder_.backward(weights, direction, *gradient);
            }
            if (dense_inputs) {
                // The target is the dense model's output, which enters its next block.
                const TensorView dense_input = dense_inputs->next();
                decoder_.forward(weights, dense_input, output, nullptr);
                context_.device.copy(output, dense_input);
                dense_x_->write_back(n, dense_input);
            }
            context_.device.square_sum(output, square_sum);
            pass.outputs.keep(n, input);
        }
        if (with_gradient) gradient->end_shard();
    }
    pass.square_sums = squares.read();
    pass.output_square_sum = sum_over(all_samples_, pass.square_sums);
    if (!std::isfinite(pass.output_square_sum)) {
        throw NonFiniteError(
            "block " + std::to_string(block) +
            ": the outputs of the dense block are not finite; the model overflows on these calibration tokens");
    }
    if (with_gradient) pass.gradient = gradient->finish(pass.partition);
    clock_.mark("dense_pass");
    return pass;
}

void BlockPruner::choose_mask(const DensePass& dense, const BlockMasker& masker, const BlockMasker::RowsOf& weights,
                              PrunedBlock& result) {
    const DeviceRange range(context_.device, "mask");
    const InputNorms norms = dense.norms.gather(all_samples_, options_.input_norm, result.report.block);
    clock_.mark("statistics");
    masker.mask_part(norms, result.report.block, weights, result.mask);
    masker.gather_mask(result.mask);
}

void BlockPruner::prune_once(const DensePass& dense, BlockWeights& weights, PrunedBlock& result) {
    const BlockMasker masker(context_, options_, dense.partition, dense.gradient);
    choose_mask(
        dense, masker,
        [&](const RowSlice& slice) {
            return weights.matrices.matrix(slice.layer).row_range(slice.row_begin, slice.row_end);
        },
        result);
    masker.gather_weights(weights);
    measure_masks(result.mask, result);
    clock_.mark("mask");
}

void BlockPruner::compensate(const DensePass& dense, const HiddenStates& x, BlockWeights& weights,
                             PrunedBlock& result) {
    const bool given = options_.method.score != Score::sparsegpt;
    if (given) {
        // The sweep needs the weights that it removes.
        Tensor scored;
        choose_mask(
            dense, BlockMasker(context_, options_, dense.partition, dense.gradient),
            [&](const RowSlice& slice) {
                const TensorView rows = weights.matrices.matrix(slice.layer).row_range(slice.row_begin, slice.row_end);
                scored = context_.device.make_tensor(rows.dtype, rows.rows, rows.columns, "weights to score");
                context_.device.copy(rows, scored);
                return scored.view();
            },
            result);
        clock_.mark("mask");
    }
    result.sentences = prune_with_sparsegpt(context_, options_, result.report.block, decoder_, x, weights,
                                            given ? SweepMask::given : SweepMask::chosen, result.mask, clock_);
    measure_masks(result.mask, result);
}

void BlockPruner::optimise_regionally(const DensePass& dense, const HiddenStates& x, BlockWeights& weights,
                                      PrunedBlock& result) {
    const std::size_t block = result.report.block;
    const BlockMasker masker(context_, options_, dense.partition, dense.gradient);
    const bool starts_masked = options_.method.compensates();
    const BlockTensor first_mask(context_.device, context_.layout, DType::u8, "first mask");
    if (starts_masked) context_.device.copy(result.mask.all(), first_mask.all());
    const RegionalProblem problem{.block = block,
                                  .decoder = decoder_,
                                  .x = x,
                                  .dense_outputs = dense.outputs,
                                  .dense_norms = dense.norms,
                                  .masker = masker,
                                  .first_mask = starts_masked ? &first_mask : nullptr,
                                  .on_idle = on_idle_};
    if (!learning_rate_) {
        const LearningRateChoice choice =
            search_learning_rate(context_, options_, problem, weights, result.mask, clock_);
        learning_rate_ = choice.learning_rate;
        if (on_search_) on_search_(choice);
    }
    RegionalOptimizer optimizer(context_, options_, problem, weights, result.mask, clock_);
    result.report.learning_rate = *learning_rate_;
    result.report.draws = optimizer.run(all_samples_, *learning_rate_, [&](const std::vector<std::size_t>& drawn) {
        const DeviceRange first_mask_range(context_.device, "first mask error");
        if (!starts_masked) {
            masker.gather_mask(result.mask);
            context_.device.copy(result.mask.all(), first_mask.all());
        }
        result.report.error_after_first_mask =
            relative_output_error(context_, decoder_, optimizer.measured_weights(), x, dense.outputs, drawn);
        clock_.mark("first_mask_error");
        on_idle_();
    });
    optimizer.finish(all_samples_);
    masker.gather_mask(result.mask);
    measure_masks(first_mask, result);
    clock_.mark("mask");
}

void BlockPruner::reconstruct(const DensePass& dense, const HiddenStates& x, BlockWeights& weights,
                              PrunedBlock& result) {
    Reconstruction reconstruction(context_, options_,
                                  {.block = result.report.block,
                                   .decoder = decoder_,
                                   .x = x,
                                   .targets = dense.outputs,
                                   .partition = dense.partition,
                                   .on_idle = on_idle_},
                                  weights, result.mask, clock_);
    result.report.learning_rate = options_.reconstruction.learning_rate;
    result.report.error_after_first_mask =
        relative_output_error(context_, decoder_, weights, x, dense.outputs, reconstruction.held_out());
    clock_.mark("first_mask_error");
    result.report.held_out_errors = reconstruction.run();
    clock_.mark("optimise");
}

double BlockPruner::sum_over(const std::vector<std::size_t>& samples, const std::vector<double>& mine) const {
    std::vector<double> values;
    for (const std::size_t sample : context_.mine_of(samples)) {
        values.push_back(mine[sample - context_.my_samples().begin]);
    }
    return sum_in_sample_order(context_, samples, values);
}

void BlockPruner::finish(const DensePass& dense, const BlockWeights& weights, HiddenStates& x, BlockReport& report) {
    const DeviceRange range(context_.device, "propagate");
    const DeviceSums errors(context_.device, x.samples().size());
    SampleReader states(context_.device, x, all_samples_of(x));
    SampleReader kept_outputs(context_.device, dense.outputs.kept(), all_samples_of(x));
    for (std::size_t n = x.samples().begin; n < x.samples().end; ++n) {
        const TensorView state = states.next(), dense_output = dense.outputs.restored(kept_outputs.next(), state);
        decoder_.forward(weights, state, state, nullptr);
        context_.device.squared_error(state, dense_output, errors.at(n - x.samples().begin));
        x.write_back(n, state);
    }
    const std::vector<double> of_samples = errors.read();
    const double error = sum_over(all_samples_, of_samples);
    if (!std::isfinite(error)) {
        throw NonFiniteError("block " + std::to_string(report.block) +
                             ": the outputs of the pruned block are not finite" +
                             (options_.method.optimises_regionally() ? "; a smaller --ro-learning-rate may help"
                                                                     : "; other calibration tokens may help"));
    }
    const auto relative = [](double sum, double norm) { return norm > 0 ? sum / norm : sum; };
    report.error_final = relative(error, dense.output_square_sum);
    if (options_.method.optimises()) {
        // Those that the error after the first mask is of.
        std::vector<std::size_t> drawn =
            report.draws.empty() ? split_samples(all_samples_.size()).held_out : report.draws.front();
        std::sort(drawn.begin(), drawn.end());
        report.error_final_first_draw = relative(sum_over(drawn, of_samples), sum_over(drawn, dense.square_sums));
    }
    clock_.mark("propagate");
}

void BlockPruner::propagate(const BlockWeights& weights, HiddenStates& x) {
    pass_through(context_.device, decoder_, weights, x);
    clock_.mark("propagate");
}

void BlockPruner::measure_masks(const BlockTensor& first_mask, PrunedBlock& result) const {
    const BlockLayout& layout = context_.layout;
    const std::size_t layers = layout.matrices().size();
    const DeviceCounters counters(context_.device, layers + 1);
    for (const LinearLayer layer : layout.linear_layers()) {
        context_.device.compare_masks(result.mask.matrix(layer), first_mask.matrix(layer), counters.at(index_of(layer)),
                                      counters.at(layers));
    }
    const std::vector<std::uint64_t> counts = counters.read();
    result.report.sparsity.clear();
    for (std::size_t m = 0; m < layers; ++m) {
        result.report.sparsity.push_back(static_cast<double>(counts[m]) /
                                         static_cast<double>(layout.matrices()[m].size()));
    }
    result.report.changed_mask_share = static_cast<double>(counts[layers]) / static_cast<double>(layout.weights());
}

void BlockPruner::add_group_totals(double flops, BlockReport& report) const {
    for (const std::size_t peak : context_.control.all_gather_value(context_.device.memory().peak())) {
        report.peak_bytes = std::max(report.peak_bytes, peak);
    }
    for (const double rank_flops : context_.control.all_gather_value(flops)) report.flops += rank_flops;
}

}  // namespace espalier
