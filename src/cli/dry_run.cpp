#include "src/cli/dry_run.h"

#include "io/file.h"
#include "src/base/error.h"
#include "src/cli/network_options.h"
#include "src/cli/output_file.h"
#include "src/plan/measure_device.h"
#include "src/plan/scaling_study.h"

#include <fmt/format.h>

#include <cstdio>

namespace espalier {

namespace {

/// What the dry run does not measure: of --rates, else of the table.
DeviceModel given_model(const OptionSet& set, bool is_gpu) {
    DeviceModel model = set.has("rates") ? read_device_model(set.text("rates")) : device_model(is_gpu ? "h100" : "cpu");
    if (model.is_gpu != is_gpu) {
        throw InputError("--rates " + set.text("rates") + " are of a " + (model.is_gpu ? "GPU" : "CPU") +
                         ", but this runs on a " + (is_gpu ? "GPU" : "CPU"));
    }
    apply_network_options(set, model.network);
    return model;
}

}  // namespace

void dry_run(const Session& session, const OptionSet& set, const DryRunInputs& inputs, ChosenDevice& chosen,
             Progress& progress) {
    if (session.size() > 1) {
        throw InputError(
            "--dry-run-ranks needs one process, which stands for all ranks; start it without mpirun, or with one task");
    }
    const std::size_t ranks = set.whole("dry-run-ranks", 1);
    if (set.has("dry-run-report")) refuse_unwritable("dry-run-report", set.text("dry-run-report"));
    const DeviceModel given = given_model(set, chosen.is_gpu);
    progress.line("measuring this device");
    DeviceModel model = measure_device(
        *chosen.device, given, MeasuredShapes::of_model(inputs.source.config(), inputs.options.sequence_length));
    model.origin += "; network " + (set.has("rates") ? "of " + set.text("rates") : "as of " + given.name);
    if (set.given("gpus-per-node") || set.given("network-bandwidth")) model.origin += ", changed by options";
    const ScalingStudy study = study_scaling({inputs.source, inputs.options, inputs.ids, ranks, model}, *chosen.device,
                                             [&](const std::string& text) { progress.line(text); });
    const PruneOptions& options = inputs.options;
    std::string about = fmt::format(
        "{}, {}, {} samples of {} tokens, {} block group(s), {} shards{}\non {}; {}\n\n", inputs.source.path().string(),
        name_of(options.method), options.samples, options.sequence_length, options.block_groups, options.shards,
        options.method.optimises_regionally() ? fmt::format(", --ro-batch {}", options.ro.batch) : "",
        chosen.device->description(), model.origin);
    if (options.method.optimises_regionally() && options.ro.batch == 1 && ranks > options.block_groups) {
        about +=
            "With --ro-batch 1 one rank of a group optimises while the others wait: a larger --ro-batch scales "
            "further.\n\n";
    }
    std::fputs((about + describe(study)).c_str(), stdout);
    if (!set.has("dry-run-report")) return;
    Json report = to_json(study);
    report["command_line"] = inputs.command_line;
    report["device"] = chosen.device->description();
    report["model"] = inputs.source.path().string();
    report["rates"] = model.to_json();
    write_text_atomically(set.text("dry-run-report"), report.dump(1) + "\n");
}

}  // namespace espalier
