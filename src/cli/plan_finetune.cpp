#include "src/cli/plan_finetune.h"

#include "src/base/error.h"
#include "src/cli/calibration_options.h"
#include "src/cli/drawn_calibration.h"
#include "src/cli/finetune_options.h"
#include "src/cli/planned_device.h"
#include "src/plan/finetune_plan.h"

#include <algorithm>
#include <cstdio>

namespace espalier {

namespace {

std::vector<OptionSpec> plan_finetune_option_specs() {
    std::vector<OptionSpec> specs = planned_device_option_specs();
    specs.push_back({"finetune", "plan `espalier finetune`", {}, true});
    specs.push_back({"json", "print JSON", {}, true});
    // So that a command line of finetune can be planned as it is.
    for (OptionSpec& spec : finetune_option_specs()) {
        const bool known = std::ranges::any_of(specs, [&](const OptionSpec& one) { return one.name == spec.name; });
        if (known) continue;
        if (spec.name == "data") {
            spec.help = "token file with the samples of the run [default: 128 samples of 2048 tokens]";
            spec.required = false;
        }
        if (spec.name == "teacher") spec.help += " [default: of the model's shape]";
        if (spec.name == "output") spec.required = false;
        if (spec.name == "output" || spec.name == "fresh" || spec.name == "device")
            spec.help = "accepted as finetune has it; changes nothing in a plan";
        specs.push_back(std::move(spec));
    }
    return specs;
}

CalibrationTokens planned_data(OptionSet& set, const ModelSource& student) {
    if (set.has("data")) {
        return request_training_tokens(set, student).tokens;
    }
    if (!set.has("samples")) set.set_effective("samples", "128", "default");
    if (!set.has("sequence-length")) {
        set.set_effective("sequence-length",
                          std::to_string(std::min(longest_by_default, student.config().longest_sequence())), "default");
    }
    return {{}, set.whole("samples", 1), set.whole("sequence-length", 2)};
}

}  // namespace

int plan_finetune(Session& session, const CommandLine& line) {
    if (print_help(session, line, "plan --finetune", "predicts memory and time of a run of finetune",
                   plan_finetune_option_specs()))
        return 0;
    if (session.rank() != 0) return 0;
    OptionSet set("plan", plan_finetune_option_specs(), line.arguments);
    const std::unique_ptr<ModelSource> student = open_model(set.text("model"));
    std::unique_ptr<ModelSource> teacher;
    const FinetuneLoss loss = finetune_loss_from_name(set.text("loss"));
    if (set.has("teacher") || loss != FinetuneLoss::lm)
        teacher = open_model(set.text(set.has("teacher") ? "teacher" : "model"));
    check_teacher(loss, *student, teacher.get());
    const CalibrationTokens data = planned_data(set, *student);
    const FinetuneOptions options = parse_training_options(set, *student, data);
    if (teacher) teacher->config().check_sequence_length(options.sequence_length);
    const DeviceModel device = choose_device_model(set);
    if (device.is_gpu) check_rank_for_gpus(options);
    const FinetunePlan plan =
        plan_finetuning({options, *student, teacher.get(), set.whole("ranks", 1), shares_head(*student, teacher.get())},
                        device, parse_places(set, options, device.is_gpu));
    Json json = {{"version", 1},
                 {"format", "espalier-finetune-plan"},
                 {"command_line", line.text},
                 {"model", student->path().string()},
                 {"rates", device.to_json()}};
    json.update(to_json(plan));
    const std::string text = set.flag("json") ? json.dump(1) + "\n" : describe(plan, options, device);
    std::fputs(text.c_str(), stdout);
    return 0;
}

}  // namespace espalier
