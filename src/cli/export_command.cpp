#include "io/drawn_tokens.h"
#include "src/base/error.h"
#include "src/cli/calibration_options.h"
#include "src/cli/commands.h"
#include "src/cli/device_options.h"
#include "src/evaluate/likelihoods.h"
#include "src/evaluate/perplexity.h"
#include "src/report/progress.h"
#include "src/weights/adapter_folder.h"
#include "src/weights/export_folder.h"
#include "src/weights/finetuned_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

namespace espalier {

std::vector<OptionSpec> export_option_specs() {
    return {
        {"run", "finished run folder, of prune or of finetune", {}, false, true},
        {"output", "folder to write", {}, false, true},
        {"model", "the dense model, if it is no longer where the run read it", {}},
        {"adapter", "of a run of finetune --train lora: write its updates as a PEFT adapter", {}, true},
        {"base",
         "for --adapter: what it names as its model, for instance the exported run [default: the folder that the run "
         "began with]",
         {}},
        {"merge-masked",
         "of a run of finetune --train lora: merge its updates where weights are kept, and say what leaving out the "
         "others costs",
         {},
         true},
        {"threads", "CPU threads, to measure that; the result does not depend on it [default: the cores]", {}},
        {"config", "file with lines 'name = value' that set options", {}}};
}

namespace {

std::filesystem::path without_slash(const std::filesystem::path& path) {
    return path.has_filename() ? path : path.parent_path();
}

/// Mean loss of the model on these samples.
double loss_of(const FinetunedSource& run, std::span<const std::int32_t> tokens, std::size_t length, Device& device,
               Progress& progress) {
    const auto alone = make_single_communicator();
    const std::vector<PackedSequences> windows = windows_of_text(run.config(), tokens, length);
    const SayProgress say = [&](const std::string& text) { progress.step(text); };
    return perplexity_of(measure_likelihoods({device, *alone, *alone, run, StoragePlace::device, say}, windows), length)
        .loss;
}

/// Leaves out of the run's updates what lies on removed weights, and says what that costs on the samples that it held
/// out, or on all that it used when it held out none.
void merge_masked(FinetunedSource& run, const Session& session, const OptionSet& options, Progress& progress) {
    const FinetuneManifest& manifest = run.manifest();
    const std::size_t vocabulary = run.config().vocabulary;
    const bool keeps_them = std::ranges::any_of(
        manifest.outer_files, [](const FileRecord& record) { return record.file == RunFolder::calibration_file; });
    const TokenTable table = keeps_them ? kept_tokens(run.path(), vocabulary)
                                        : read_token_file(manifest.data_path, vocabulary, TokenPurpose::calibration);
    if (table.sha256 != manifest.data_sha256) {
        throw InputError(manifest.data_path + " is not the file that " + run.path().string() +
                         " was trained on: what --merge-masked costs cannot be measured");
    }
    const auto length = manifest.options.at("sequence_length").get<std::size_t>();
    const auto samples = manifest.options.at("samples").get<std::size_t>();
    const auto held_out = manifest.options.at("held_out").get<std::size_t>();
    const std::size_t row = table.rows == 1 ? length : table.columns;
    std::vector<std::int32_t> tokens;
    for (std::size_t sample = held_out > 0 ? samples - held_out : 0; sample < samples; ++sample) {
        const auto begin = table.ids.begin() + static_cast<std::ptrdiff_t>(sample * row);
        tokens.insert(tokens.end(), begin, begin + static_cast<std::ptrdiff_t>(length));
    }
    const std::unique_ptr<Device> device = make_cpu_device(choose_threads(session, options));
    const double before = loss_of(run, tokens, length, *device, progress);
    run.keep_zeros();
    const double after = loss_of(run, tokens, length, *device, progress);
    progress.line(
        fmt::format("merged under the mask: the loss on the run's {} samples goes from {:.4f} to {:.4f} (perplexity "
                    "{:.2f} to {:.2f})",
                    held_out > 0 ? "held-out" : "own", before, after, std::exp(before), std::exp(after)));
}

}  // namespace

int export_command(Session& session, const CommandLine& line) {
    if (print_help(session, line, "export", "writes a run as a Hugging Face folder", export_option_specs())) return 0;
    session.agree([&] {
        if (session.rank() != 0) return;
        const OptionSet set("export", export_option_specs(), line.arguments);
        Progress progress(true);
        std::optional<std::filesystem::path> dense;
        if (set.has("model")) dense = set.text("model");
        const std::filesystem::path output = without_slash(set.text("output")), path = set.text("run");
        if (!RunFolder(path).has_manifest())
            throw InputError(path.string() + " is not a run folder: it has no manifest.json");
        const std::unique_ptr<ModelSource> run = open_model(path);
        auto* const finetuned = dynamic_cast<FinetunedSource*>(run.get());
        for (const char* const name : {"adapter", "merge-masked"}) {
            if (!set.flag(name) || (finetuned != nullptr && finetuned->is_dense())) continue;
            throw InputError("--" + std::string(name) + " is for runs of finetune --train lora, which " +
                             path.string() + " is not");
        }
        if (set.flag("adapter")) {
            if (set.flag("merge-masked")) throw InputError("give --adapter or --merge-masked, not both");
            if (!set.has("base") && RunFolder(finetuned->base().path()).has_manifest()) {
                throw InputError("the adapter belongs on " + finetuned->base().path().string() +
                                 ", a run folder, which peft cannot open: export that too, and name it with --base");
            }
            export_adapter(*finetuned, output, set.has("base") ? set.text("base") : finetuned->base().path().string());
            progress.line("adapter written to " + output.string());
            return;
        }
        if (set.has("base")) throw InputError("--base is for --adapter, which is not given");
        std::error_code unknown;
        if (std::filesystem::exists(output, unknown))
            throw InputError("--output " + output.string() + " exists already");
        if (set.flag("merge-masked")) merge_masked(*finetuned, session, set, progress);
        const std::vector<std::string> remarks =
            export_run(*run, output, dense, [&](const std::string& text) { progress.step(text); });
        for (const std::string& remark : remarks) progress.line(remark);
        progress.line("exported to " + output.string());
    });
    return 0;
}

}  // namespace espalier
