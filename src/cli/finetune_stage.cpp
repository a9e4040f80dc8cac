#include "src/cli/finetune_stage.h"

#include "io/run_folder.h"
#include "src/base/error.h"
#include "src/base/units.h"
#include "src/cli/finetune_options.h"
#include "src/plan/unread_source.h"
#include "src/report/run_identity.h"
#include "src/weights/finetune_manifest.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace espalier {

namespace {

/// The shapes of what a run of pruning will have written.
class WrittenSource final : public UnreadSource {
  public:
    WrittenSource(const ModelSource& dense, DType dtype) : UnreadSource(dense) { storage_.matrix_dtype = dtype; }
};

/// The shape of what the stage trains with.
CalibrationTokens trained_tokens(const RequestedTokens& calibration, std::size_t continuations) {
    RequestedTokens trained = {{{}, calibration.asked, calibration.tokens.sequence_length}, {}, 0, calibration.asked};
    trained.add_continuations(continuations);
    return trained.tokens;
}

}  // namespace

std::vector<OptionSpec> finetune_stage_option_specs() {
    return {{"finetune-epochs",
             "at the end, train the whole pruned model so many times with the samples of --calibration (without "
             "--continuations) and --finetune-continuations towards the dense model's predictions, as finetune --train "
             "masked --loss kl --gradient-norm 0; 0: not at all",
             "0"},
            {"finetune-continuations",
             "samples that the dense model adds for the training at the end to each one that --calibration has without "
             "--continuations: text that no block has been trained with, of which the last is held out",
             "1"},
            {"finetune-batch", "samples of a step at the end, or all there are", "8"},
            {"finetune-learning-rate",
             "the rate at the end at its highest, times the root mean square of each matrix's kept weights", "1e-3"}};
}

bool has_finetune_stage(const OptionSet& options) {
    return options.positive("finetune-epochs", true) > 0;
}

CommandLine command_of_finetune_stage(const OptionSet& options, const ModelSource& dense,
                                      const std::filesystem::path& output, const RequestedTokens& tokens) {
    // An eighth is enough to see whether training helps, and three looks at it: before, half way, at the end.
    constexpr std::size_t share = 8, most_held_out = 32;
    constexpr double looks = 2;
    // Continuations are counted from the same number in both stages, and no text may be drawn twice.
    constexpr std::uint64_t other_draws = 1000003;
    const std::size_t samples = trained_tokens(tokens, options.whole("finetune-continuations", 0)).samples,
                      held_out = std::min(samples / share, most_held_out);
    const std::size_t batch = std::min<std::size_t>(options.whole("finetune-batch", 1), samples - held_out);
    static_cast<void>(options.positive("finetune-learning-rate"));  // refused by the name that was given
    const double steps =
        options.positive("finetune-epochs") * static_cast<double>(samples - held_out) / static_cast<double>(batch);
    const std::filesystem::path pruned = output / RunFolder::pruned_folder;
    CommandLine line;
    line.arguments = {"--model=" + pruned.string(),
                      "--teacher=" + dense.path().string(),
                      "--data=" + (tokens.are_there() && options.has("calibration")
                                       ? options.text("calibration")
                                       : (pruned / RunFolder::calibration_file).string()),
                      "--samples=" + std::to_string(tokens.asked),
                      "--continuations=" + options.text("finetune-continuations"),
                      "--sequence-length=" + std::to_string(tokens.tokens.sequence_length),
                      "--output=" + output.string(),
                      "--train=masked",
                      "--loss=kl",
                      "--gradient-norm=0",  // AdamW does not mind, and no gradient has to wait for the others
                      "--held-out=" + std::to_string(held_out),
                      "--batch=" + std::to_string(batch),
                      "--epochs=" + options.text("finetune-epochs"),
                      "--evaluate-steps=" + fmt::format("{:.0f}", std::max(1.0, std::ceil(std::ceil(steps) / looks))),
                      "--learning-rate=" + options.text("finetune-learning-rate"),
                      "--seed=" + std::to_string(options.whole("seed", 0) + other_draws)};
    for (std::string& word : options.words_of({"device", "gpu-memory", "threads", "output-dtype"}))
        line.arguments.push_back(std::move(word));
    if (options.has("fresh") && options.flag("fresh")) line.arguments.emplace_back("--fresh");
    line.reads_environment = false;  // what it holds was meant for this command
    line.text = "espalier finetune";
    for (const std::string& word : line.arguments) line.text += " " + word;
    return line;
}

FinetuneOptions options_of_finetune_stage(const CommandLine& line, const ModelSource& dense,
                                          const RequestedTokens& calibration) {
    OptionSet set("finetune", finetune_option_specs(), line.arguments, line.reads_environment);
    return parse_training_options(set, dense, trained_tokens(calibration, set.whole("continuations", 0)));
}

void prepare_for_finetune_stage(const std::filesystem::path& output, const ModelSource& dense, bool fresh) {
    refuse_output_in(output, dense, "--model");
    const RunFolder run(output);
    run.prepare(dense.config_text());
    if (!run.has_manifest()) return;
    if (fresh) {
        // What was trained goes before what was pruned is replaced: between the two it would be of another model.
        const RunLock lock(run, new_run_id());
        return run.clear();
    }
    const bool has_both = FinetuneManifest::is_in(run) && run.pruned().has_manifest();
    if (!has_both) {
        throw InputError("--output " + output.string() +
                         " holds a run without --finetune-epochs, or one of finetune; choose another folder, or give "
                         "--fresh to start over");
    }
}

void refuse_pruned_inside(const std::filesystem::path& output) {
    if (!RunFolder(output).pruned().has_manifest()) return;
    throw InputError("--output " + output.string() + " holds a run with --finetune-epochs, and what that has pruned (" +
                     RunFolder(output).pruned().path().string() + "); choose another folder");
}

FinetunePlan plan_finetune_stage(const FinetuneOptions& options, const ModelSource& dense, std::size_t ranks,
                                 const DeviceModel& device) {
    const WrittenSource student(dense, options.output_dtype);
    return plan_finetuning({options, student, &dense, ranks, true}, device);
}

void check_room_for_finetune_stage(const Session& session, const ChosenDevice& chosen, const FinetuneOptions& options,
                                   const ModelSource& dense, const std::filesystem::path& output) {
    const auto me = static_cast<std::size_t>(session.rank());
    const WrittenSource student(dense, options.output_dtype);
    const PlannedFinetuning planned{options, student, &dense, static_cast<std::size_t>(session.size()), true};
    if (chosen.is_gpu) {
        static_cast<void>(plan_finetune_memory(planned, {&me, 1}, counting_model(*chosen.device)));
        return;
    }
    std::error_code error;
    const std::filesystem::space_info space = std::filesystem::space(output, error);
    const std::uint64_t needed = bytes_away(planned);
    if (error || space.available >= needed || me != 0) return;
    throw ResourceError(
        fmt::format("--output {}: the disk has {} left, and the last stage (--finetune-epochs) keeps {} "
                    "there while it trains",
                    output.string(), format_bytes(static_cast<double>(space.available)),
                    format_bytes(static_cast<double>(needed))));
}

}  // namespace espalier
