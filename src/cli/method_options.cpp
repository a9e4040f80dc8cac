#include "src/cli/method_options.h"

#include "src/base/error.h"
#include "src/cli/finetune_stage.h"
#include "src/cli/presets.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace espalier {

namespace {

/// The kernels compute with it in float32.
bool is_usable_float(double value) {
    return value >= std::numeric_limits<float>::min() && value <= std::numeric_limits<float>::max();
}

RegionalOptimizationOptions parse_regional_optimization(OptionSet& options, Method method, std::size_t samples) {
    RegionalOptimizationOptions ro;
    const bool optimises = method.optimises_regionally();
    if (!options.has("ro-samples")) {
        options.set_effective("ro-samples", std::to_string(std::min<std::size_t>(32, samples)), "default");
    }
    ro.samples = options.whole("ro-samples", 1);
    if (ro.samples > samples && optimises) {
        throw InputError(fmt::format("--ro-samples {} exceeds the {} calibration samples", ro.samples, samples));
    }
    ro.rounds = options.whole("ro-rounds", 1);
    ro.batch = options.whole("ro-batch", 1);
    if (ro.batch > ro.samples && optimises) {
        throw InputError(fmt::format("--ro-batch {} exceeds the {} samples of a round", ro.batch, ro.samples));
    }
    const std::string scaling = options.text("ro-lr-scaling");
    if (scaling == "none")
        ro.scaling = LearningRateScaling::none;
    else if (scaling == "sqrt")
        ro.scaling = LearningRateScaling::sqrt;
    else if (scaling == "linear")
        ro.scaling = LearningRateScaling::linear;
    else
        throw InputError("--ro-lr-scaling '" + scaling + "' is not one of none, sqrt, linear");
    if (options.text("ro-learning-rate") == "auto") {
        ro.learning_rate.reset();
        if (samples < 2 && optimises) {
            throw InputError("--ro-learning-rate auto holds out samples and needs at least 2, not 1; give a number");
        }
    } else {
        ro.learning_rate = options.positive("ro-learning-rate");
        if (!is_usable_float(ro.scaled_rate(*ro.learning_rate))) {
            throw InputError("--ro-learning-rate " + options.text("ro-learning-rate") + " is outside of float32");
        }
    }
    ro.hold_mask = options.flag("hold-mask");
    ro.compute = regional_compute_from_name(options.text("ro-compute"));
    return ro;
}

ReconstructionOptions parse_reconstruction(const OptionSet& options, Method method, std::size_t samples) {
    ReconstructionOptions parsed;
    constexpr std::size_t most_epochs = 1'000'000;
    parsed.epochs = options.whole("epochs", 1);
    if (parsed.epochs > most_epochs) throw InputError("--epochs " + options.text("epochs") + " is more than a million");
    parsed.batch = options.whole("batch", 1);
    parsed.learning_rate = options.positive("learning-rate");
    if (!is_usable_float(parsed.learning_rate))
        throw InputError("--learning-rate " + options.text("learning-rate") + " is outside of float32");
    parsed.warm_up = options.positive("warm-up", true);
    if (parsed.warm_up > 1) throw InputError("--warm-up " + options.text("warm-up") + " is not a share from 0 to 1");
    parsed.target = reconstruction_target_from_name(options.text("target"));
    parsed.loss = reconstruction_loss_from_name(options.text("loss"));
    if (method.reconstructs() && samples < 2)
        throw InputError("--method " + name_of(method) + " holds out samples and needs at least 2, not 1");
    return parsed;
}

}  // namespace

std::vector<OptionSpec> method_option_specs() {
    std::vector<OptionSpec> specs = {
        preset_option_spec(),
        {"method",
         "magnitude, wanda, sparsegpt, rgs (regional gradients), ro (regional optimisation), wanda++ (both), or "
         "reconstruct (sparsegpt, then each block is trained); or a composition: a score (magnitude, wanda, rgs, "
         "sparsegpt), +sparsegpt for its compensation, +ro or +reconstruct behind",
         "wanda++"},
        {"pattern", "2:4, 4:8 or another N:M, which keeps N of every M neighbouring weights of a row; or unstructured",
         "2:4"},
        {"sparsity", "with --pattern unstructured: share of each row's weights that is removed", "0.5"},
        {"samples", "number of calibration samples [default: 128, or as many as the file has, when fewer]", {}},
        {"sequence-length", "tokens of each sample [default: as in the file, at most 2048]", {}},
        {"continuations",
         "samples that the model itself adds to each calibration sample: they begin with a quarter of it and go on as "
         "the model would, so that there are this many times more to calibrate with; of self: as many more draws",
         "0"},
        {"seed", "of the draws of samples in an optimisation or reconstruction, and of tokens (self:)", "0"},
        {"alpha", "weight of the regional gradient in the score of rgs and wanda++", "100"},
        {"input-norm", "norms of the inputs: sum (over all tokens) or mean (the sum divided by the number of samples)",
         "sum"},
        {"ro-samples", "samples drawn in each round of regional optimisation [default: 32, or all, when fewer]", {}},
        {"ro-rounds", "rounds of regional optimisation in each block", "5"},
        {"ro-learning-rate",
         "learning rate of regional optimisation: a number, or auto, which tries several on the first block. The "
         "default is the paper's, made for 7B models; auto suits any model and takes some per cent more time",
         "3e-7"},
        {"ro-batch", "samples of one optimiser step (changes the result); with more than 1, several ranks share a step",
         "1"},
        {"ro-lr-scaling", "how the learning rate grows with --ro-batch: none, sqrt or linear", "sqrt"},
        {"ro-compute",
         "how a GPU computes the products of an optimisation or reconstruction: tf32, float32 (exact, slow) or 16bit "
         "(fast)",
         "tf32"},
        {"hold-mask", "keep removed weights at zero during regional optimisation", {}, true},
        {"epochs", "reconstruction: times that each sample is used in each block", "10"},
        {"batch", "reconstruction: samples of one step (changes the result); ranks share those that are long", "4"},
        {"learning-rate",
         "reconstruction: the rate at its highest, times the root mean square of each matrix's kept weights", "1e-2"},
        {"warm-up", "reconstruction: share of the steps in which the rate grows; then it falls to 0", "0.1"},
        {"target",
         "reconstruction: outputs of the dense block on the pruned model's hidden states (block), or those of the "
         "dense "
         "model (dense-stream)",
         "dense-stream"},
        {"loss",
         "reconstruction: the squared error of each token relative to its target (token), or of all outputs together "
         "(sum), which in many models is that of the first token",
         "token"},
        {"block-groups",
         "groups of blocks that are pruned at the same time, each by ranks of its own (changes the result)", "1"},
        {"shards",
         "parts of the calibration samples, which ranks share out among them (changes the result) [default: 8, or the "
         "number of samples, when less]",
         {}},
        {"output-dtype",
         "type of the written weights: float32, float16 or bfloat16 [default: as in the checkpoint]",
         {}}};
    for (OptionSpec& spec : finetune_stage_option_specs()) specs.push_back(std::move(spec));
    return specs;
}

PruneOptions parse_method_options(OptionSet& options, const ModelSource& source, std::size_t samples,
                                  std::size_t sequence_length) {
    PruneOptions parsed;
    parsed.model = source.path();
    parsed.method = method_from_name(options.text("method"));
    parsed.pattern = PruningPattern::parse(options.text("pattern"), options.positive("sparsity"));
    if (parsed.pattern.structured() && options.given("sparsity") &&
        std::fabs(options.positive("sparsity") - parsed.pattern.sparsity) > 1e-6) {
        throw InputError(fmt::format("--sparsity {} contradicts --pattern {}, which removes {:g} of the weights",
                                     options.text("sparsity"), options.text("pattern"), parsed.pattern.sparsity));
    }
    if (parsed.pattern.structured()) source.layout().check_group(parsed.pattern.group);
    parsed.samples = samples;
    parsed.sequence_length = sequence_length;
    source.config().check_sequence_length(parsed.sequence_length);
    parsed.seed = options.whole("seed", 0);
    parsed.alpha = options.positive("alpha", true);
    if (parsed.alpha != 0 && !is_usable_float(parsed.alpha)) {
        throw InputError("--alpha " + options.text("alpha") + " is outside of float32");
    }
    if (options.text("input-norm") == "mean")
        parsed.input_norm = InputNorm::mean;
    else if (options.text("input-norm") != "sum") {
        throw InputError("--input-norm '" + options.text("input-norm") + "' is not one of sum, mean");
    }
    parsed.ro = parse_regional_optimization(options, parsed.method, parsed.samples);
    parsed.reconstruction = parse_reconstruction(options, parsed.method, parsed.samples);
    parsed.block_groups = options.whole("block-groups", 1);
    if (!options.has("shards")) {
        options.set_effective("shards", std::to_string(std::min<std::size_t>(8, parsed.samples)), "default");
    }
    parsed.shards = options.whole("shards", 1);
    if (!options.has("output-dtype")) {
        options.set_effective("output-dtype", std::string(name_of(source.storage().matrix_dtype)), "checkpoint");
    }
    parsed.output_dtype = float_dtype_from_name(options.text("output-dtype"));
    return parsed;
}

}  // namespace espalier
