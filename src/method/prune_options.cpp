#include "src/method/prune_options.h"

#include "src/base/error.h"
#include "src/base/name_table.h"
#include "src/samples/samples_at_once.h"

#include <algorithm>
#include <cmath>

namespace espalier {

namespace {

constexpr NameTable<RegionalCompute, 3> computes = {{{{RegionalCompute::float32, "float32"},
                                                      {RegionalCompute::tf32, "tf32"},
                                                      {RegionalCompute::sixteen_bit, "16bit"}}}};
constexpr NameTable<ReconstructionTarget, 2> targets = {
    {{{ReconstructionTarget::block, "block"}, {ReconstructionTarget::dense_stream, "dense-stream"}}}};
constexpr NameTable<ReconstructionLoss, 2> losses = {
    {{{ReconstructionLoss::sum, "sum"}, {ReconstructionLoss::token, "token"}}}};

}  // namespace

std::string_view name_of(ReconstructionTarget target) {
    return targets.name_of(target);
}

ReconstructionTarget reconstruction_target_from_name(std::string_view name) {
    return targets.value_of(name, "--target");
}

std::string_view name_of(ReconstructionLoss loss) {
    return losses.name_of(loss);
}

ReconstructionLoss reconstruction_loss_from_name(std::string_view name) {
    return losses.value_of(name, "--loss");
}

std::size_t PruneOptions::samples_of_pass() const {
    return method.reconstructs() ? std::min(samples_at_once(sequence_length), reconstruction.batch) : 1;
}

bool PruneOptions::owner_steps_alone() const {
    if (!method.optimises()) return false;
    return (method.reconstructs() ? reconstruction.batch : ro.batch) <= samples_of_pass();
}

std::string_view name_of(RegionalCompute compute) {
    return computes.name_of(compute);
}

RegionalCompute regional_compute_from_name(std::string_view name) {
    return computes.value_of(name, "--ro-compute");
}

std::string_view name_of(LearningRateScaling scaling) {
    switch (scaling) {
        case LearningRateScaling::none:
            return "none";
        case LearningRateScaling::sqrt:
            return "sqrt";
        case LearningRateScaling::linear:
            return "linear";
    }
    throw BugError("internal error: unknown learning-rate scaling");
}

DType RegionalOptimizationOptions::type_of_passes(const Device& device, DType run) const {
    if (compute != RegionalCompute::sixteen_bit) return DType::f32;
    return device.compute_dtype(run == DType::f32 ? DType::bf16 : run);
}

double RegionalOptimizationOptions::scaled_rate(double base) const {
    const auto size = static_cast<double>(batch);
    switch (scaling) {
        case LearningRateScaling::none:
            return base;
        case LearningRateScaling::sqrt:
            return base * std::sqrt(size);
        case LearningRateScaling::linear:
            return base * size;
    }
    throw BugError("internal error: unknown learning-rate scaling");
}

Json PruneOptions::deciding_values(const ComputedOn& device) const {
    Json values = {{"method", name_of(method)},
                   {"pattern", pattern.name()},
                   {"sparsity", pattern.sparsity},
                   {"samples", samples},
                   {"sequence-length", sequence_length},
                   {"seed", seed},
                   {"input-norm", input_norm == InputNorm::sum ? "sum" : "mean"},
                   {"block-groups", block_groups},
                   {"shards", shards},
                   {"output-dtype", name_of(output_dtype)},
                   {"device", device.gpu ? "cuda" : "cpu"},
                   {"arithmetic", device.arithmetic},
                   {"only-blocks", nullptr}};
    if (only_blocks) {
        values["only-blocks"] = std::to_string(only_blocks->begin) + "-" + std::to_string(only_blocks->end - 1);
    }
    if (method.uses_regional_gradient()) values["alpha"] = alpha;
    if (method.reconstructs()) {
        values["epochs"] = reconstruction.epochs;
        values["batch"] = reconstruction.batch;
        values["learning-rate"] = reconstruction.learning_rate;
        values["warm-up"] = reconstruction.warm_up;
        values["target"] = name_of(reconstruction.target);
        values["loss"] = name_of(reconstruction.loss);
        if (device.gpu) values["ro-compute"] = name_of(ro.compute);
    }
    if (method.optimises_regionally()) {
        values["ro-samples"] = ro.samples;
        values["ro-rounds"] = ro.rounds;
        values["ro-learning-rate"] = ro.learning_rate ? Json(*ro.learning_rate) : Json("auto");
        values["ro-batch"] = ro.batch;
        values["ro-lr-scaling"] = name_of(ro.scaling);
        values["hold-mask"] = ro.hold_mask;
        if (device.gpu) values["ro-compute"] = name_of(ro.compute);
    }
    return values;
}

}  // namespace espalier
