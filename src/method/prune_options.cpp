#include "src/method/prune_options.h"

#include "src/base/error.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

namespace espalier {

namespace {
constexpr std::array<std::pair<RegionalCompute, std::string_view>, 3> computes = {
    {{RegionalCompute::float32, "float32"}, {RegionalCompute::tf32, "tf32"}, {RegionalCompute::sixteen_bit, "16bit"}}};
constexpr std::array<std::pair<ReconstructionTarget, std::string_view>, 2> targets = {
    {{ReconstructionTarget::block, "block"}, {ReconstructionTarget::dense_stream, "dense-stream"}}};
constexpr std::array<std::pair<ReconstructionLoss, std::string_view>, 2> losses = {
    {{ReconstructionLoss::sum, "sum"}, {ReconstructionLoss::token, "token"}}};
}  // namespace

std::string_view name_of(ReconstructionTarget target) {
    return targets[static_cast<std::size_t>(target)].second;
}

ReconstructionTarget reconstruction_target_from_name(std::string_view name) {
    for (const auto& [value, word] : targets) {
        if (word == name) return value;
    }
    throw InputError("--target '" + std::string(name) + "' is not one of block, dense-stream");
}

std::string_view name_of(ReconstructionLoss loss) {
    return losses[static_cast<std::size_t>(loss)].second;
}

ReconstructionLoss reconstruction_loss_from_name(std::string_view name) {
    for (const auto& [value, word] : losses) {
        if (word == name) return value;
    }
    throw InputError("--loss '" + std::string(name) + "' is not one of sum, token");
}

std::size_t PruneOptions::samples_of_pass() const {
    constexpr std::size_t rows = 256;  // more make products hardly faster
    if (!method.reconstructs()) return 1;
    return std::clamp<std::size_t>(rows / sequence_length, 1, reconstruction.batch);
}

bool PruneOptions::owner_steps_alone() const {
    if (!method.optimises()) return false;
    return (method.reconstructs() ? reconstruction.batch : ro.batch) <= samples_of_pass();
}

std::string_view name_of(RegionalCompute compute) {
    for (const auto& [value, name] : computes) {
        if (value == compute) return name;
    }
    throw BugError("internal error: unknown way to compute");
}

RegionalCompute regional_compute_from_name(std::string_view name) {
    for (const auto& [value, word] : computes) {
        if (word == name) return value;
    }
    throw InputError("--ro-compute '" + std::string(name) + "' is not one of float32, tf32, 16bit");
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
