#include "src/base/error.h"
#include "src/base/units.h"
#include "src/cli/calibration_options.h"
#include "src/cli/commands.h"
#include "src/cli/drawn_calibration.h"
#include "src/cli/finetune_stage.h"
#include "src/cli/method_options.h"
#include "src/cli/plan_finetune.h"
#include "src/cli/planned_device.h"
#include "src/cli/presets.h"
#include "src/evaluate/perplexity.h"
#include "src/plan/evaluation_plan.h"
#include "src/plan/plan_text.h"
#include "src/report/progress.h"

#include <algorithm>
#include <cstdio>

namespace espalier {

namespace {

constexpr const char* plan_summary = "predicts memory and time of a run, and the best way to use 1 … 1024 GPUs";

/// So that a command line of prune can be planned as it is.
constexpr const char* ignored_by_plan = "accepted as prune has it; changes nothing in a plan";

}  // namespace

std::vector<OptionSpec> plan_option_specs() {
    std::vector<OptionSpec> specs = {
        {"model",
         "model to plan for: a Hugging Face folder, a finished run folder, or synthetic:NAME (see prune)",
         {},
         false,
         true},
        {"table",
         "print the fastest --block-groups, --shards and --ro-batch for 1, 2, 4 … 1024 ranks; those of the three that "
         "are given stay as they are",
         {},
         true},
        {"json", "print JSON", {}, true},
        {"evaluate",
         "plan `espalier evaluate` of the model instead, on the text in this token file, or on so many tokens",
         {}},
        {"finetune",
         "plan `espalier finetune` of the model instead, with the options of that command: espalier plan --finetune "
         "--help",
         {},
         true},
        {"calibration",
         "token file with as many samples as the run will use [default: 128 samples of 2048 tokens]",
         {}},
        {"output", ignored_by_plan, {}},
        {"device", ignored_by_plan, {}},
        {"only-blocks", ignored_by_plan, {}},
        {"fresh", ignored_by_plan, {}, true},
        {"resume", ignored_by_plan, {}, true},
        {"config", "file with lines 'name = value' that set options", {}}};
    for (OptionSpec& spec : planned_device_option_specs()) specs.push_back(std::move(spec));
    for (OptionSpec& spec : method_option_specs()) specs.push_back(std::move(spec));
    return specs;
}

namespace {

PlanTable make_table(const PlannedModel& model, const PruneOptions& options, const OptionSet& set,
                     const DeviceModel& device) {
    PlanChoice choice;
    if (set.given("block-groups")) choice.block_groups = options.block_groups;
    if (set.given("shards")) choice.shards = options.shards;
    if (set.given("ro-batch")) choice.ro_batch = options.ro.batch;
    PlanTable table;
    for (std::size_t ranks = 1; ranks <= 1024; ranks *= 2) {
        table.emplace_back(ranks, best_plan(model, options, choice, ranks, device));
    }
    return table;
}

/// What a plan of `evaluate` would have to ignore.
void refuse_options_of_runs(const OptionSet& set) {
    std::vector<std::string> names = {"table", "calibration", "only-blocks"};
    for (const OptionSpec& spec : method_option_specs()) names.push_back(spec.name);
    for (const std::string& name : names) {
        if (name == "sequence-length" || !set.given_here(name)) continue;
        throw InputError("--" + name + " is for runs of prune; --evaluate plans the evaluation of a model");
    }
}

/// The text of --evaluate: a file's, or any of that length.
std::vector<std::int32_t> read_evaluation_text(OptionSet& set, const ModelSource& source) {
    const std::string& text = set.text("evaluate");
    std::vector<std::int32_t> ids;
    std::size_t row = source.config().longest_sequence();
    if (std::all_of(text.begin(), text.end(), [](char c) { return '0' <= c && c <= '9'; })) {
        constexpr std::size_t most = 10'000'000;
        const std::size_t tokens = set.whole("evaluate", 2);
        if (tokens > most) throw InputError("--evaluate " + text + ": plans are for at most 10,000,000 tokens");
        ids.resize(tokens);
    } else {
        TokenTable table = read_token_file(text, source.config().vocabulary, TokenPurpose::evaluation);
        row = row_of_text(table);
        ids = std::move(table.ids);
    }
    if (!set.has("sequence-length")) {
        set.set_effective("sequence-length", std::to_string(std::min({longest_by_default, row, ids.size()})),
                          "default");
    }
    return ids;
}

void plan_evaluate(OptionSet& set, const ModelSource& source, const DeviceModel& device, const Json& head) {
    const std::vector<std::int32_t> ids = read_evaluation_text(set, source);
    const std::size_t length = set.whole("sequence-length", 2), windows = ids.size() / length;
    const std::vector<PackedSequences> passes = windows_of_text(source.config(), ids, length);
    const EvaluationPlan plan =
        plan_evaluation({source, passes, set.whole("ranks", 1), "use a shorter --sequence-length"}, device);
    Json json = head;
    json.update({{"format", "espalier-evaluation-plan"}, {"windows", windows}, {"sequence_length", length}});
    json.update(to_json(plan));
    const std::string what = std::to_string(windows) + " windows of " + std::to_string(length) + " tokens";
    const std::string text = set.flag("json") ? json.dump(1) + "\n" : describe(plan, what, device);
    std::fputs(text.c_str(), stdout);
}

/// The shape of the calibration tokens, those that the model will draw included.
RequestedTokens planned_calibration(OptionSet& set, const ModelSource& source) {
    RequestedTokens requested;
    if (set.has("calibration")) {
        requested = request_tokens(set, set.text("calibration"), source.config().vocabulary);
    } else {
        if (!set.has("samples")) set.set_effective("samples", "128", "default");
        if (!set.has("sequence-length")) {
            const std::size_t longest = source.config().longest_sequence();
            set.set_effective("sequence-length", std::to_string(std::min(longest_by_default, longest)), "default");
        }
        requested.given = requested.asked = set.whole("samples", 1);
        requested.tokens = {{}, requested.asked, set.whole("sequence-length", 1)};
    }
    apply_preset(set, requested);
    requested.add_continuations(set.whole("continuations", 0));
    return requested;
}

FinetuneOptions planned_finetune_stage(const OptionSet& set, const ModelSource& source,
                                       const RequestedTokens& calibration) {
    const std::filesystem::path output = set.has("output") ? set.text("output") : std::string("RUN");
    return options_of_finetune_stage(command_of_finetune_stage(set, source, output, calibration), source, calibration);
}

}  // namespace

int plan_command(Session& session, const CommandLine& line) {
    if (std::ranges::find(line.arguments, "--finetune") != line.arguments.end()) return plan_finetune(session, line);
    if (print_help(session, line, "plan", plan_summary, plan_option_specs())) return 0;
    if (session.rank() != 0) return 0;
    OptionSet set("plan", plan_option_specs(), line.arguments);
    if (set.flag("finetune")) throw InputError("give --finetune as a word of this command: other options go with it");
    const std::unique_ptr<ModelSource> source = open_model(set.text("model"));
    for (const std::string& remark : source->remarks()) Progress(true).line(remark);
    const DeviceModel device = choose_device_model(set);
    const Json head = {
        {"version", 1}, {"command_line", line.text}, {"model", source->path().string()}, {"rates", device.to_json()}};
    if (set.has("evaluate")) {
        refuse_options_of_runs(set);
        plan_evaluate(set, *source, device, head);
        return 0;
    }
    const RequestedTokens calibration = planned_calibration(set, *source);
    const PruneOptions options =
        parse_method_options(set, *source, calibration.tokens.samples, calibration.tokens.sequence_length);
    const std::size_t ranks = set.whole("ranks", 1);
    const PlannedModel model{source->config(), source->layout(), source->storage()};
    if (set.flag("table")) {
        if (set.given("ranks")) throw InputError("--table is for 1 … 1024 ranks; leave --ranks out");
        const PlanTable table = make_table(model, options, set, device);
        Json json = head;
        json.update({{"format", "espalier-plan-table"}, {"rows", to_json(table)}});
        std::string text = set.flag("json") ? json.dump(1) + "\n" : describe(table);
        if (has_finetune_stage(set) && !set.flag("json"))
            text += "\nof pruning alone, without the last stage (--finetune-epochs)\n";
        std::fputs(text.c_str(), stdout);
        return 0;
    }
    const RunPlan plan = plan_run(model, options, ranks, device);
    const RunTotals totals = count_totals(model, options, ranks, device);
    Json json = head;
    json["format"] = "espalier-plan";
    json.update(to_json(plan));
    json.update(to_json(totals));
    std::string text = describe(plan, totals, device);
    if (has_finetune_stage(set)) {
        const FinetuneOptions stage = planned_finetune_stage(set, *source, calibration);
        const FinetunePlan plan_of_stage = plan_finetune_stage(stage, *source, ranks, device);
        json["finetune"] = to_json(plan_of_stage);
        text += "\nthen the whole model (--finetune-epochs), without the time to draw tokens:\n" +
                describe(plan_of_stage, stage, device);
    }
    if (set.flag("json")) text = json.dump(1) + "\n";
    std::fputs(text.c_str(), stdout);
    return 0;
}

}  // namespace espalier
