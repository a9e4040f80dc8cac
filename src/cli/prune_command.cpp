#include "io/run_folder.h"
#include "src/base/error.h"
#include "src/base/stop_request.h"
#include "src/base/units.h"
#include "src/cli/commands.h"
#include "src/cli/device_options.h"
#include "src/cli/drawn_calibration.h"
#include "src/cli/dry_run.h"
#include "src/cli/finetune_stage.h"
#include "src/cli/method_options.h"
#include "src/cli/network_options.h"
#include "src/cli/presets.h"
#include "src/plan/memory_plan.h"
#include "src/prune/pipeline.h"
#include "src/report/run_identity.h"
#include "src/weights/manifest.h"
#include "src/weights/synthetic_source.h"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <map>

namespace espalier {

namespace {

constexpr const char* prune_summary = "prunes a model, decoder block by decoder block, into a run folder";

}  // namespace

std::vector<OptionSpec> prune_option_specs() {
    std::vector<OptionSpec> specs = {
        {"model", "model to prune: a Hugging Face folder, a finished run folder, or synthetic:NAME", {}, false, true},
        {"calibration",
         "calibration tokens, [samples, length]: an HDF5 file with /input_ids, an .npy file, tokens drawn from the "
         "model "
         "itself (self:128x2048), or random ones (synthetic:128x2048)",
         {},
         false,
         true},
        {"output", "run folder to write; needed for all but a dry run", {}},
        {"dry-run-ranks",
         "dry run, which writes no run folder: computes the share of one rank of 1, 2, 4 … up to this many, and prints "
         "how the run would scale",
         {}},
        {"dry-run-report", "for dry runs: file to write its numbers to, as JSON", {}},
        {"rates", "for dry runs: rates of the network and the files, from `espalier doctor --rates FILE`", {}}};
    for (OptionSpec& spec : network_option_specs()) specs.push_back(std::move(spec));
    for (OptionSpec& spec : method_option_specs()) specs.push_back(std::move(spec));
    for (OptionSpec spec : std::initializer_list<OptionSpec>{
             {"only-blocks", "prune only blocks a to b, counted from 0, and leave the others dense; written a-b", {}},
             {"fresh", "delete what an earlier run left in --output, and start again", {}, true},
             {"resume",
              "continue the run in --output if there is one: the default, so the option changes nothing",
              {},
              true},
             {"config", "file with lines 'name = value' that set options", {}}}) {
        specs.push_back(std::move(spec));
    }
    for (OptionSpec& spec : device_option_specs()) specs.push_back(std::move(spec));
    return specs;
}

namespace {

IndexRange parse_blocks(const std::string& text, std::size_t blocks) {
    std::size_t first = 0, last = 0;
    int used = 0;
    const int fields = std::sscanf(text.c_str(), "%zu-%zu%n", &first, &last, &used);
    if (fields != 2 || static_cast<std::size_t>(used) != text.size() || text.front() == '-' || last < first ||
        last >= blocks) {
        throw InputError("--only-blocks '" + text + "' is not a-b with a <= b < " + std::to_string(blocks));
    }
    return {first, last + 1};
}

/// The run folder to write; empty for a dry run. Throws InputError.
std::filesystem::path output_of(const OptionSet& options) {
    const std::filesystem::path output = options.has("output") ? options.text("output") : std::string();
    if (output.empty() && !options.has("dry-run-ranks"))
        throw InputError("option --output, the run folder to write, is missing");
    return output.has_filename() ? output : output.parent_path();
}

/// `output`: of what is pruned.
PruneOptions parse_options(OptionSet& options, const ModelSource& source, const CalibrationTokens& calibration,
                           const std::filesystem::path& output) {
    PruneOptions parsed = parse_method_options(options, source, calibration.samples, calibration.sequence_length);
    parsed.calibration = options.text("calibration");
    const bool dry_run = options.has("dry-run-ranks");
    for (const char* const name : {"dry-run-report", "rates", "gpus-per-node", "network-bandwidth"}) {
        if (!dry_run && options.given_here(name)) {
            throw InputError("--" + std::string(name) + " is for --dry-run-ranks, which is not given");
        }
    }
    parsed.output = output;
    if (options.has("only-blocks"))
        parsed.only_blocks = parse_blocks(options.text("only-blocks"), source.config().blocks.size());
    refuse_tokens_in(parsed.output, options.text("calibration"), "--calibration");
    parsed.fresh = options.flag("fresh");
    if (parsed.fresh && options.flag("resume")) throw InputError("give --fresh or --resume, not both");
    return parsed;
}

/// Options that were given and that the method does not use: allowed, so that one command line serves all methods, but
/// said.
std::string options_without_effect(const OptionSet& options, Method method) {
    std::string names;
    const auto add = [&](const char* name) {
        if (options.given(name)) names += (names.empty() ? "--" : ", --") + std::string(name);
    };
    if (!method.uses_regional_gradient()) add("alpha");
    if (!method.optimises_regionally()) {
        for (const char* const name : {"ro-samples", "ro-rounds", "ro-learning-rate", "ro-batch", "ro-lr-scaling"})
            add(name);
    }
    if (!method.optimises()) {
        add("ro-compute");
        add("hold-mask");
    }
    if (!method.reconstructs()) {
        for (const char* const name : {"epochs", "batch", "learning-rate", "warm-up", "target", "loss"}) add(name);
    }
    if (method.chooses_mask_once() && method.optimises()) add("hold-mask");
    if (!has_finetune_stage(options)) {
        for (const char* const name : {"finetune-continuations", "finetune-batch", "finetune-learning-rate"}) add(name);
    }
    if (!method.uses_input_norms()) add("input-norm");
    return names;
}

/// One line for each place that values came from: "default: alpha 100, block-groups 1 ...".
void announce_options(Progress& progress, const Json& options_with_origins) {
    std::map<std::string, std::string> by_origin;
    for (const auto& [name, option] : options_with_origins.items()) {
        std::string& line = by_origin[option["origin"].get<std::string>()];
        line += fmt::format("{}{} {}", line.empty() ? "" : ", ", name, option["value"].get<std::string>());
    }
    for (const auto& [origin, line] : by_origin) progress.line(fmt::format("options ({}): {}", origin, line));
}

void announce(Progress& progress, const PruneOptions& options, const ModelSource& source, const RunFacts& facts,
              const RequestedTokens& tokens, const Topology& topology) {
    const ModelConfig& config = source.config();
    progress.line(
        fmt::format("pruning {} ({}, {} blocks of {:.1f} million weights) to {} with {}", options.model.string(),
                    config.model_type, config.blocks.size(), static_cast<double>(source.layout().weights()) / 1e6,
                    options.pattern.structured() ? options.pattern.name()
                                                 : fmt::format("{:g} % sparsity", 100 * options.pattern.sparsity),
                    name_of(options.method)));
    progress.line(fmt::format("calibration: {} samples of {} tokens from {}{}", options.samples,
                              options.sequence_length, options.calibration.string(),
                              tokens.continuations() == 0
                                  ? std::string()
                                  : fmt::format(", {} {}", options.samples - tokens.asked,
                                                tokens.given > 0 ? "of which go on from them" : "more than that")));
    progress.line(fmt::format("{} rank(s) in {} block group(s); {}", facts.ranks, options.block_groups, facts.device));
    announce_options(progress, facts.options_with_origins);
    for (const std::string& remark : source.remarks()) progress.line(remark);
    std::size_t data_ranks = 0;
    for (const BlockGroup& group : topology.groups()) data_ranks = std::max(data_ranks, group.ranks.size());
    if (data_ranks > options.shards) {
        progress.line(
            fmt::format("warning: {} ranks share {} shards of samples, so some have nothing to do (give more --shards)",
                        data_ranks, options.shards));
    }
    const bool coarse = options.output_dtype == DType::bf16 && options.method.optimises_regionally();
    if (coarse && options.ro.learning_rate && *options.ro.learning_rate < 1e-5) {
        progress.line(
            "warning: weights are written as bfloat16, whose spacing at 0.02 is 1.2e-4: part of regional "
            "optimisation's small "
            "steps is lost in rounding (--output-dtype float32 keeps them; unchanged_weight_share in metrics.json "
            "says how much)");
    }
}

/// The last stage, with the samples that it trains on; none when there is no such stage.
std::optional<CommandLine> choose_last_stage(const OptionSet& set, const ModelSource& source,
                                             const RequestedTokens& requested) {
    if (set.has("dry-run-ranks") || !has_finetune_stage(set)) return std::nullopt;
    if (set.has("only-blocks")) {
        throw InputError(
            "--only-blocks leaves blocks dense, and --finetune-epochs would train them; give one of the two (of a "
            "preset, --finetune-epochs 0)");
    }
    CommandLine stage = command_of_finetune_stage(set, source, output_of(set), requested);
    static_cast<void>(options_of_finetune_stage(stage, source, requested));
    return stage;
}

/// Returns the exit status, and the command line of the last stage, when there is one.
int prune(Session& session, const CommandLine& line, std::optional<CommandLine>& last_stage) {
    std::optional<OptionSet> set;
    std::unique_ptr<ModelSource> source;
    ChosenDevice chosen;
    RequestedTokens requested;
    PruneOptions options;
    RunFacts facts;
    std::optional<Topology> topology;
    Progress progress(session.rank() == 0);
    session.agree([&] {
        set.emplace("prune", prune_option_specs(), line.arguments);
        if (!set->has("dry-run-ranks")) session.check_tasks();
        source = open_model(set->text("model"));
        requested = request_tokens(*set, set->text("calibration"), source->config().vocabulary);
        apply_preset(*set, requested);
        requested.add_continuations(set->whole("continuations", 0));
        const std::filesystem::path output = output_of(*set);
        last_stage = choose_last_stage(*set, *source, requested);
        options =
            parse_options(*set, *source, requested.tokens, last_stage ? output / RunFolder::pruned_folder : output);
        if (last_stage) refuse_tokens_in(output, set->text("calibration"), "--calibration");
        facts.calibration_sha256 = requested.sha256;
        topology.emplace(static_cast<std::size_t>(session.size()), source->config().blocks.size(), options.block_groups,
                         options.samples, options.shards);
        chosen = make_device(session, *set);
        facts.computed_on = {chosen.is_gpu, chosen.device->arithmetic()};
    });
    check_devices(session, chosen);
    if (set->has("dry-run-ranks")) {
        heed_stop_signals();  // it has nothing to save
        if (has_finetune_stage(*set))
            progress.line("note: a dry run is of pruning alone, without the last stage (--finetune-epochs)");
        session.agree([&] {
            dry_run(session, *set, {*source, options, requested.tokens.ids, line.text}, chosen, progress);
        });
        return 0;
    }
    // Before anything is written: does it fit?
    MemoryPlan memory;
    session.agree([&] {
        if (!chosen.is_gpu) return;  // a CPU has what the host has
        memory = plan_memory({.options = options,
                              .model = {source->config(), source->layout(), source->storage()},
                              .topology = *topology,
                              .rank = session.rank()},
                             counting_model(*chosen.device));
    });
    session.agree([&] {
        const std::filesystem::path output = options.output.parent_path();
        if (session.rank() == 0) {
            if (!last_stage) return refuse_pruned_inside(options.output);
            source->verify_outer();
            prepare_for_finetune_stage(output, *source, options.fresh);
        }
        if (last_stage) {
            check_room_for_finetune_stage(session, chosen, options_of_finetune_stage(*last_stage, *source, requested),
                                          *source, output);
        }
    });
    const std::string calibration_name = set->text("calibration");
    std::optional<DrawnCalibration> drawn;
    if (!requested.are_there()) {
        const auto before_it = [&] {
            source->verify_outer();
            refuse_output_in(options.output, *source, "--model");
            const RunFolder run(options.output);
            run.prepare(source->config_text());
            if (!run.has_manifest() || options.fresh) return;
            const Manifest held = Manifest::read(run);
            Json before = held.options, now = options.deciding_values(facts.computed_on);
            // Of a file that is gone on from the ledger compares the content.
            if (requested.given == 0) {
                before["calibration"] = held.calibration_path;
                now["calibration"] = calibration_name;
            }
            refuse_differences(options.output, before, now);
        };
        drawn = draw_calibration(session, chosen,
                                 {*source, calibration_name, requested, options.seed, options.output, options.fresh},
                                 before_it, progress);
        requested.tokens.ids = drawn->table.ids;
        facts.calibration_sha256 = drawn->table.sha256;
    }
    const std::string of_host_memory = note_about_host_memory(session.world(), memory);
    facts.command_line = line.text;
    facts.options_with_origins = set->with_origins();
    facts.device = chosen.device->description();
    facts.ranks = static_cast<std::size_t>(session.size());
    facts.threads_per_rank = static_cast<std::size_t>(omp_get_max_threads());

    std::unique_ptr<RunLedger> ledger;
    session.agree([&] {
        if (session.rank() != 0) return;
        if (!drawn) source->verify_outer();
        ledger = std::make_unique<RunLedger>(options, *source, facts, progress);
        announce(progress, options, *source, facts, requested, *topology);
        if (!chosen.note.empty()) progress.line(chosen.note);
        const std::string unused = options_without_effect(*set, options.method);
        if (!unused.empty()) {
            progress.line(fmt::format("note: --method {} does not use {}", name_of(options.method), unused));
        }
        if (!of_host_memory.empty()) progress.line(of_host_memory);
        ledger->say_opening();
        if (drawn && !ledger->complete()) ledger->keep_calibration(drawn->table, drawn->recipe);
        if (!ledger->complete()) ledger->start_outer_file(*source);
    });
    const Json shared = Json::parse(session.broadcast_text(ledger ? Json({{"state", ledger->state().to_json()},
                                                                          {"attributes", ledger->block_attributes()},
                                                                          {"complete", ledger->complete()}})
                                                                        .dump()
                                                                  : std::string()));
    if (shared["complete"].get<bool>()) {
        const std::string run = options.output.string();
        progress.line(last_stage ? "what was pruned is in " + run + ", complete; next is the whole model"
                                 : "the run in " + run + " is complete; nothing to do (--fresh starts over)");
        return 0;
    }
    const RunState state = RunState::from_json(shared["state"]);
    const bool complete =
        prune_model({.session = session,
                     .device = *chosen.device,
                     .options = options,
                     .source = *source,
                     .calibration = requested.tokens,
                     .hidden_states = memory.hidden_states,
                     .ledger = ledger.get(),
                     .state = state,
                     .block_attributes = shared["attributes"].get<std::map<std::string, std::string>>(),
                     .progress = progress,
                     .host_threads = chosen.host_threads});
    if (!complete) {
        // One rank's signal stops all; another's may still be on its way.
        const std::vector<int> signals = session.world().all_gather_value(stop_signal());
        const auto heard = std::find_if(signals.begin(), signals.end(), [](int signal) { return signal != 0; });
        session.agree([&] {
            if (!ledger) return;
            ledger->leave();
            if (heard == signals.end()) throw BugError("internal error: the run stopped without a signal");
            progress.line(fmt::format("stopped by {}: {} of {} blocks are finished; the same command continues",
                                      name_of_signal(*heard), ledger->blocks_done(), source->config().blocks.size()));
        });
        return static_cast<int>(ExitStatus::interrupted);
    }
    const std::vector<std::size_t> resident = session.world().all_gather_value(peak_resident_bytes());
    session.agree([&] {
        if (!ledger) return;
        const Json metrics = ledger->finish(*std::max_element(resident.begin(), resident.end()));
        progress.summary(metrics);
        if (last_stage) return;
        progress.line("");
        const std::string run = options.output.string();
        const bool can_be_exported = !SyntheticSource::is_named(options.model);
        progress.line("written to " + run + "; next: espalier evaluate --model " + run + " --tokens FILE" +
                      (can_be_exported ? ", espalier export --run " + run + " --output DIR" : std::string()));
    });
    return 0;
}

}  // namespace

int prune_command(Session& session, const CommandLine& line) {
    if (print_help(session, line, "prune", prune_summary, prune_option_specs())) return 0;
    std::optional<CommandLine> last_stage;
    const int status = prune(session, line, last_stage);
    return status == 0 && last_stage ? finetune_command(session, *last_stage) : status;
}

}  // namespace espalier
