#include "src/prune/prune_options.h"

#include "src/base/error.h"

#include <array>
#include <cmath>
#include <utility>

namespace espalier {

namespace {
constexpr std::array<std::pair<Method, std::string_view>, 6> methods = {{{Method::magnitude, "magnitude"},
                                                                         {Method::wanda, "wanda"},
                                                                         {Method::sparsegpt, "sparsegpt"},
                                                                         {Method::rgs, "rgs"},
                                                                         {Method::ro, "ro"},
                                                                         {Method::wanda_plus_plus, "wanda++"}}};
}

std::string_view name_of(Method method) {
    for (const auto& [value, name] : methods) {
        if (value == method) return name;
    }
    throw BugError("internal error: unknown method");
}

Method method_from_name(std::string_view name) {
    std::string known;
    for (const auto& [value, word] : methods) {
        if (word == name) return value;
        known += (known.empty() ? "" : ", ") + std::string(word);
    }
    throw InputError("--method '" + std::string(name) + "' is not one of " + known);
}

bool uses_regional_gradient(Method method) {
    return method == Method::rgs || method == Method::wanda_plus_plus;
}

bool uses_regional_optimization(Method method) {
    return method == Method::ro || method == Method::wanda_plus_plus;
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

Json PruneOptions::deciding_values() const {
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
                   {"only-blocks", nullptr}};
    if (only_blocks) {
        values["only-blocks"] = std::to_string(only_blocks->begin) + "-" + std::to_string(only_blocks->end - 1);
    }
    if (uses_regional_gradient(method)) values["alpha"] = alpha;
    if (uses_regional_optimization(method)) {
        values["ro-samples"] = ro.samples;
        values["ro-rounds"] = ro.rounds;
        values["ro-learning-rate"] = ro.learning_rate ? Json(*ro.learning_rate) : Json("auto");
        values["ro-batch"] = ro.batch;
        values["ro-lr-scaling"] = name_of(ro.scaling);
        values["hold-mask"] = ro.hold_mask;
    }
    return values;
}

}  // namespace espalier
