#include "src/cli/finetune_options.h"

#include "src/base/error.h"
#include "src/base/name_table.h"
#include "src/blocks/outer_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

namespace espalier {

std::vector<OptionSpec> training_option_specs() {
    return {
        {"train",
         "what is trained of a matrix: masked-lora (an update of low rank that keeps every zero), lora (one that does "
         "not), or masked (all weights that are not zero)",
         "masked-lora"},
        {"rank", "rank of the updates", "16"},
        {"alpha", "the updates are multiplied by alpha / rank", "32"},
        {"dropout", "share of an update's inputs that a step drops; under a mask that takes another product a matrix",
         "0"},
        {"targets", "matrices that are trained, for instance q_proj,v_proj, or all", "all"},
        {"train-norms", "train the gains of all norms, too", {}, true},
        {"loss",
         "what is minimised: lm (the text's own next tokens), kl (divergence from the teacher's distribution), or mix "
         "(0.67 kl + 0.33 lm)",
         "lm"},
        {"learning-rate",
         "at its highest; for masked relative to the root mean square of each tensor's kept weights [default: 5e-4, or "
         "3e-3 for masked]",
         {}},
        {"warm-up", "share of the steps in which the rate grows; then it falls to 0", "0.1"},
        {"weight-decay", "of AdamW, with each step", "0"},
        {"gradient-norm", "the norm to which gradients are cut; 0: as they are", "1"},
        {"batch", "samples of a step", "8"},
        {"epochs", "times that each sample is used [default: 1]", {}},
        {"steps", "steps to take, instead of --epochs", {}},
        {"samples", "samples to use, of those in the file [default: all]", {}},
        {"sequence-length", "tokens of each sample [default: those of the file, at most 2048]", {}},
        {"continuations",
         "samples that the teacher, or the model where there is none, adds to each one of the file: they begin with a "
         "quarter of it and go on as the model would, so that there are this many times more to train on; of self: as "
         "many more draws",
         "0"},
        {"held-out",
         "samples, the last of those used, that are not trained on: the best values on them are kept [default: an "
         "eighth, at most 64]",
         {}},
        {"evaluate-steps", "steps between two looks at the held-out samples [default: a tenth of all]", {}},
        {"patience", "looks without a better one that end the run; 0: it takes all steps", "0"},
        {"seed", "of the samples' order, the updates' first values, and tokens that are drawn (self:)", "0"},
        {"output-dtype", "type of the merged weights: float32, float16 or bfloat16 [default: as in the model]", {}}};
}

namespace {

std::vector<std::string> parse_targets(const std::string& text, const BlockLayout& layout) {
    if (text == "all") return {};
    std::vector<std::string> known;
    for (const MatrixShape& matrix : layout.matrices()) known.emplace_back(short_name(matrix.name));
    std::vector<std::string> targets;
    for (std::size_t begin = 0; begin <= text.size();) {
        const std::size_t end = std::min(text.find(',', begin), text.size());
        const std::string name = text.substr(begin, end - begin);
        if (std::ranges::find(known, name) == known.end()) {
            throw InputError(
                fmt::format("--targets '{}' is no matrix of this model; there are {}", name, fmt::join(known, ", ")));
        }
        targets.push_back(name);
        begin = end + 1;
    }
    // In the order of the model, so that the same choice is the same run.
    std::erase_if(known, [&](const std::string& name) { return std::ranges::find(targets, name) == targets.end(); });
    return known;
}

double share(const OptionSet& options, const std::string& name) {
    const double value = options.positive(name, true);
    if (value > 1) throw InputError(fmt::format("--{} {} is not a share from 0 to 1", name, options.text(name)));
    return value;
}

std::size_t steps_of(OptionSet& options, const FinetuneOptions& parsed) {
    if (options.has("steps") && options.has("epochs")) throw InputError("give --steps or --epochs, not both");
    if (options.has("steps")) return static_cast<std::size_t>(options.whole("steps", 1));
    const double epochs = options.has("epochs") ? options.positive("epochs") : 1;
    const double steps =
        std::ceil(epochs * static_cast<double>(parsed.training_samples()) / static_cast<double>(parsed.batch));
    if (steps > 1e9) throw InputError("--epochs " + options.text("epochs") + " would take more than 1e9 steps");
    options.set_effective("steps", std::to_string(static_cast<std::size_t>(steps)), "epochs");
    return static_cast<std::size_t>(steps);
}

}  // namespace

RequestedTokens request_training_tokens(OptionSet& options, const ModelSource& student) {
    constexpr std::size_t all = std::numeric_limits<std::size_t>::max();
    RequestedTokens requested = request_tokens(options, options.text("data"), student.config().vocabulary, all);
    requested.add_continuations(options.whole("continuations", 0));
    return requested;
}

FinetuneOptions parse_training_options(OptionSet& options, const ModelSource& student, const CalibrationTokens& data) {
    FinetuneOptions parsed;
    parsed.model = student.path();
    parsed.train = trained_part_from_name(options.text("train"));
    parsed.loss = finetune_loss_from_name(options.text("loss"));
    parsed.rank = static_cast<std::size_t>(options.whole("rank", 1));
    parsed.alpha = options.positive("alpha");
    parsed.dropout = options.positive("dropout", true);
    if (parsed.dropout >= 1) throw InputError("--dropout " + options.text("dropout") + " is not a share below 1");
    if (parsed.dropout > 0 && !parsed.low_rank())
        throw InputError("--dropout is of updates of low rank, and --train masked has none");
    parsed.targets = parse_targets(options.text("targets"), student.layout());
    parsed.train_norms = options.flag("train-norms");
    for (const MatrixShape& matrix : student.layout().matrices()) {
        if (parsed.low_rank() && parsed.is_target(matrix) && parsed.rank > std::min(matrix.rows, matrix.columns)) {
            throw InputError(fmt::format("--rank {} exceeds that of {}, which is {} x {}", parsed.rank, matrix.name,
                                         matrix.rows, matrix.columns));
        }
    }
    if (!options.has("learning-rate"))
        options.set_effective("learning-rate", parsed.low_rank() ? "5e-4" : "3e-3", "default");
    parsed.learning_rate = options.positive("learning-rate");
    parsed.warm_up = share(options, "warm-up");
    parsed.weight_decay = options.positive("weight-decay", true);
    parsed.gradient_norm = options.positive("gradient-norm", true);
    parsed.batch = static_cast<std::size_t>(options.whole("batch", 1));
    parsed.samples = data.samples;
    parsed.sequence_length = data.sequence_length;
    if (parsed.sequence_length < 2) throw InputError("--sequence-length must be at least 2 to predict a next token");
    student.config().check_sequence_length(parsed.sequence_length);
    constexpr std::size_t usual_share = 8, most_held_out = 64;
    if (!options.has("held-out")) {
        options.set_effective("held-out", std::to_string(std::min(parsed.samples / usual_share, most_held_out)),
                              "samples");
    }
    parsed.held_out = static_cast<std::size_t>(options.whole("held-out", 0));
    if (parsed.held_out >= parsed.samples) {
        throw InputError(
            fmt::format("--held-out {} leaves none of the {} samples to train on", parsed.held_out, parsed.samples));
    }
    if (parsed.batch > parsed.training_samples()) {
        if (options.given("batch")) {
            throw InputError(fmt::format("--batch {} exceeds the {} samples that are trained on", parsed.batch,
                                         parsed.training_samples()));
        }
        parsed.batch = parsed.training_samples();
        options.set_effective("batch", std::to_string(parsed.batch), "samples");
    }
    parsed.steps = steps_of(options, parsed);
    if (!options.has("evaluate-steps")) {
        options.set_effective("evaluate-steps", std::to_string(std::max<std::size_t>(1, (parsed.steps + 9) / 10)),
                              "steps");
    }
    parsed.evaluate_steps = static_cast<std::size_t>(options.whole("evaluate-steps", 1));
    parsed.patience = static_cast<std::size_t>(options.whole("patience", 0));
    if (parsed.patience > 0 && parsed.held_out == 0)
        throw InputError("--patience needs held-out samples, and --held-out is 0");
    parsed.seed = options.whole("seed", 0);
    if (!options.has("output-dtype")) {
        options.set_effective("output-dtype", std::string(name_of(student.storage().matrix_dtype)), "model");
    }
    parsed.output_dtype = float_dtype_from_name(options.text("output-dtype"));
    return parsed;
}

void check_rank_for_gpus(const FinetuneOptions& options) {
    constexpr std::size_t unit = 8;  // what tensor cores take of 16-bit factors
    if (options.low_rank() && options.rank % unit != 0)
        throw InputError(fmt::format("--rank {} is not a multiple of {}, as GPUs want it", options.rank, unit));
}

void check_teacher(FinetuneLoss loss, const ModelSource& student, const ModelSource* teacher) {
    const std::string of_loss = "--loss " + std::string(name_of(loss));
    if (teacher == nullptr) {
        if (loss == FinetuneLoss::lm) return;
        throw InputError(of_loss + " needs --teacher, the dense model");
    }
    const std::string name = "--teacher " + teacher->path().string();
    if (loss == FinetuneLoss::lm) throw InputError(of_loss + " does not ask a teacher, and --teacher is given");
    if (teacher->config().vocabulary != student.config().vocabulary) {
        throw InputError(fmt::format("{} has a vocabulary of {} tokens, the model one of {}", name,
                                     teacher->config().vocabulary, student.config().vocabulary));
    }
    if (teacher->config().hidden_size != student.config().hidden_size) {
        throw InputError(fmt::format("{} has hidden states of {}, the model of {}: it is not what it was pruned from",
                                     name, teacher->config().hidden_size, student.config().hidden_size));
    }
}

bool shares_head(const ModelSource& student, const ModelSource* teacher) {
    return teacher != nullptr && have_same_outer(student, *teacher, OuterTensor::head);
}

AskedPlaces parse_places(const OptionSet& options, const FinetuneOptions& parsed, bool is_gpu) {
    constexpr NameTable<std::optional<WeightPlace>, 3> weights = {
        {{{std::nullopt, "auto"}, {WeightPlace::resident, "resident"}, {WeightPlace::shared, "shared"}}}};
    constexpr NameTable<std::optional<StatePlace>, 4> states = {{{{std::nullopt, "auto"},
                                                                  {StatePlace::device, "device"},
                                                                  {StatePlace::host, "host"},
                                                                  {StatePlace::file, "file"}}}};
    const std::string& place = options.text("optimizer-state");
    AskedPlaces asked;
    asked.weights = weights.value_of(options.text("weights"), "--weights");
    asked.states = states.value_of(place, "--optimizer-state");
    if (!asked.states) return asked;
    if (asked.states == StatePlace::file && is_gpu)
        throw InputError("--optimizer-state file is for CPUs; host is what a GPU has beside its own memory");
    if (asked.states != StatePlace::device && parsed.low_rank()) {
        throw InputError(
            fmt::format("--optimizer-state {} is for --train masked; updates of low rank are small", place));
    }
    return asked;
}

}  // namespace espalier
