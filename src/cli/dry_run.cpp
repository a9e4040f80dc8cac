#include "src/cli/dry_run.h"

#include "io/file.h"
#include "src/base/error.h"
#include "src/cli/network_options.h"
#include "src/plan/dry_run.h"
#include "src/plan/measure_device.h"

#include <cstdio>

namespace espalier {

void dry_run(const Session& session, const OptionSet& set, const DryRunInputs& inputs, ChosenDevice& chosen,
             Progress& progress) {
    if (session.size() > 1) {
        throw InputError("--dry-run-ranks plays all ranks in one process; start it without mpirun or with one task");
    }
    const std::size_t ranks = set.whole("dry-run-ranks", 1);
    progress.line("measuring this device");
    DeviceModel model = device_model(chosen.is_gpu ? "h100" : "cpu");
    apply_network_options(set, model.network);
    model = measure_device(*chosen.device, model,
                           MeasuredShapes::of_model(inputs.source.config(), inputs.options.sequence_length));
    const ScalingStudy study = study_scaling({inputs.source, inputs.options, inputs.ids, ranks, model}, *chosen.device,
                                             [&](const std::string& text) { progress.line(text); });
    std::fputs(describe(study).c_str(), stdout);
    if (!set.has("dry-run-report")) return;
    Json report = to_json(study);
    report["command_line"] = inputs.command_line;
    report["device"] = chosen.device->description();
    write_text_atomically(set.text("dry-run-report"), report.dump(1) + "\n");
}

}  // namespace espalier
