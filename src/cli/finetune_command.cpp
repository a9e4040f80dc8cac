#include "mpi/tensor_communicator.h"
#include "src/base/error.h"
#include "src/base/stop_request.h"
#include "src/cli/commands.h"
#include "src/cli/device_options.h"
#include "src/cli/drawn_calibration.h"
#include "src/cli/finetune_options.h"
#include "src/cli/finetune_stage.h"
#include "src/finetune/finetune_run.h"
#include "src/plan/finetune_plan.h"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <optional>

namespace espalier {

namespace {

constexpr const char* finetune_summary = "trains a pruned model further and keeps its zeros";

}  // namespace

std::vector<OptionSpec> finetune_option_specs() {
    std::vector<OptionSpec> specs = {
        {"model", "model to train: a finished run folder, a Hugging Face folder, or synthetic:NAME", {}, false, true},
        {"data",
         "tokens to train on, [samples, length]: an HDF5 file with /input_ids, an .npy file, or tokens drawn from the "
         "teacher, or from the model where there is none (self:128x2048)",
         {},
         false,
         true},
        {"output", "run folder to write", {}, false, true},
        {"teacher", "the dense model, for --loss kl and mix", {}}};
    for (OptionSpec& spec : training_option_specs()) specs.push_back(std::move(spec));
    for (OptionSpec spec : std::initializer_list<OptionSpec>{
             {"checkpoint-steps", "steps between two checkpoints [default: one every ten minutes]", {}},
             {"weights",
              "where weights lie: resident (all of them on every device), shared (an equal part on each, gathered "
              "block by block), or auto, which shares them where they do not fit",
              "auto"},
             {"optimizer-state",
              "where values and moments of --train masked lie: device, host (its memory; a GPU has those of one block "
              "at a time), file (in --output, of a CPU: so has the process), or auto, which is file on a CPU and host "
              "where a GPU is too small",
              "auto"},
             {"fresh", "delete what an earlier run left in --output, and start again", {}, true},
             {"config", "file with lines 'name = value' that set options", {}}}) {
        specs.push_back(std::move(spec));
    }
    for (OptionSpec& spec : device_option_specs()) specs.push_back(std::move(spec));
    return specs;
}

namespace {

void announce(Progress& progress, const FinetuneOptions& options, const ModelSource& student,
              const RequestedTokens& data, const FinetuneFacts& facts) {
    progress.line(fmt::format("fine-tuning {} ({}, {} blocks) to {}: {} towards {}", options.model.string(),
                              student.config().model_type, student.config().blocks.size(), options.output.string(),
                              name_of(options.train), name_of(options.loss)));
    const std::string and_continuations =
        data.continuations() == 0 ? std::string()
                                  : fmt::format(", {} {}", options.samples - data.asked,
                                                data.given > 0 ? "of which go on from them" : "more than that");
    progress.line(fmt::format("{} samples of {} tokens from {}{}, {} held out; {} steps of {} samples", options.samples,
                              options.sequence_length, options.data.string(), and_continuations, options.held_out,
                              options.steps, options.batch));
    progress.line(fmt::format("{} rank(s); {}", facts.ranks, facts.device));
    for (const std::string& remark : student.remarks()) progress.line(remark);
}

/// Options that were given and that change nothing: allowed, so that one command line serves all, but said.
void note_unused(Progress& progress, const OptionSet& set, const FinetuneOptions& options) {
    std::string names;
    for (const char* const name : {"rank", "alpha"}) {
        if (!options.low_rank() && set.given(name)) names += (names.empty() ? "--" : ", --") + std::string(name);
    }
    if (!names.empty()) progress.line(fmt::format("note: --train {} does not use {}", name_of(options.train), names));
}

}  // namespace

int finetune_command(Session& session, const CommandLine& line) {
    if (print_help(session, line, "finetune", finetune_summary, finetune_option_specs())) return 0;
    std::optional<OptionSet> set;
    std::unique_ptr<ModelSource> student, teacher;
    ChosenDevice chosen;
    RequestedTokens data;
    FinetuneOptions options;
    FinetuneFacts facts;
    AskedPlaces asked;
    Progress progress(session.rank() == 0);
    session.agree([&] {
        set.emplace("finetune", finetune_option_specs(), line.arguments, line.reads_environment);
        session.check_tasks();
        student = open_model(set->text("model"));
        if (set->has("teacher")) teacher = open_model(set->text("teacher"));
        check_teacher(finetune_loss_from_name(set->text("loss")), *student, teacher.get());
        data = request_training_tokens(*set, *student);
        facts.data_sha256 = data.sha256;
        options = parse_training_options(*set, *student, data.tokens);
        if (teacher) teacher->config().check_sequence_length(options.sequence_length);
        options.data = set->text("data");
        options.output = set->text("output");
        if (!options.output.has_filename()) options.output = options.output.parent_path();
        refuse_tokens_in(options.output, options.data, "--data");
        if (options.model != RunFolder(options.output).pruned().path()) refuse_pruned_inside(options.output);
        if (teacher) options.teacher = teacher->path();
        options.fresh = set->flag("fresh");
        if (set->has("checkpoint-steps"))
            options.checkpoint_steps = static_cast<std::size_t>(set->whole("checkpoint-steps", 1));
        chosen = make_device(session, *set);
        asked = parse_places(*set, options, chosen.is_gpu);
        if (chosen.is_gpu) check_rank_for_gpus(options);
        facts.arithmetic = chosen.device->arithmetic();
    });
    check_devices(session, chosen);
    facts.command_line = line.text;
    facts.options_with_origins = set->with_origins();
    facts.device = chosen.device->description();
    facts.ranks = static_cast<std::size_t>(session.size());
    facts.threads_per_rank = static_cast<std::size_t>(omp_get_max_threads());
    char has_one_head = 0;
    session.agree([&] { has_one_head = session.rank() == 0 && shares_head(*student, teacher.get()) ? 1 : 0; });
    has_one_head = session.world().all_gather_value(has_one_head).front();
    FinetuneMemory memory;
    const PlannedFinetuning planned{options, *student, teacher.get(), static_cast<std::size_t>(session.size()),
                                    has_one_head != 0};
    const auto plan = [&] {
        session.agree([&] {
            const auto me = static_cast<std::size_t>(session.rank());
            if (chosen.is_gpu)
                memory = plan_finetune_memory(planned, {&me, 1}, counting_model(*chosen.device), asked);
            else  // it has what the host has
                memory.places = places_on_cpu(options, asked);
        });
    };
    plan();
    // All ranks share their weights, or none does.
    const std::vector<WeightPlace> of_ranks = session.world().all_gather_value(memory.places.weights);
    if (std::ranges::any_of(of_ranks, [&](WeightPlace place) { return place != of_ranks.front(); })) {
        asked.weights = WeightPlace::shared;
        plan();
    }
    std::optional<DrawnCalibration> drawn;
    if (!data.are_there()) {
        const auto before_it = [&] {
            student->verify_outer();
            if (teacher) teacher->verify_outer();
            refuse_output_in(options.output, *student, "--model");
            if (teacher) refuse_output_in(options.output, *teacher, "--teacher");
            const RunFolder run(options.output);
            run.prepare(student->config_text());
            if (!run.has_manifest() || options.fresh) return;
            const FinetuneManifest held = FinetuneManifest::read(run);
            Json before = held.options, now = options.deciding_values(facts.arithmetic);
            // Of a file that is gone on from the ledger compares the content.
            if (data.given == 0) {
                before["data"] = held.data_path;
                now["data"] = set->text("data");
            }
            refuse_differences(options.output, before, now);
        };
        drawn = draw_calibration(
            session, chosen,
            {teacher ? *teacher : *student, set->text("data"), data, options.seed, options.output, options.fresh},
            before_it, progress);
        data.tokens.ids = drawn->table.ids;
        facts.data_sha256 = drawn->table.sha256;
    }
    const std::string of_host_memory = note_about_host_memory(session.world(), memory.memory);
    const TensorCommunicator tensors(session.world(), *chosen.device);
    const TrainingContext training = {.device = *chosen.device,
                                      .group = tensors.get(),
                                      .control = session.world(),
                                      .options = options,
                                      .student = *student,
                                      .teacher = teacher.get(),
                                      .teacher_shares_head = has_one_head != 0,
                                      .ids = data.tokens.ids,
                                      .weights = memory.places.weights,
                                      .hidden_states = memory.places.hidden_states,
                                      .states = memory.places.states,
                                      .state_file = options.output / RunFolder::state_file(session.rank())};
    std::unique_ptr<FinetuneLedger> ledger;
    session.agree([&] {
        if (session.rank() != 0) return;
        if (!drawn) student->verify_outer();
        if (!drawn && teacher) teacher->verify_outer();
        ledger = std::make_unique<FinetuneLedger>(options, *student, teacher.get(), facts, progress);
        if (drawn && !ledger->complete()) ledger->keep_data(drawn->table, drawn->recipe);
        announce(progress, options, *student, data, facts);
        note_unused(progress, *set, options);
        if (!chosen.note.empty()) progress.line(chosen.note);
        if (!of_host_memory.empty()) progress.line(of_host_memory);
        if (memory.places.weights == WeightPlace::shared && session.size() > 1)
            progress.line("every rank holds a share of the weights, and gathers block after block");
        if (memory.places.states != StatePlace::device)
            progress.line("what is trained lies in " + std::string(describe(memory.places.states)) +
                          ", that of one block at a time on the device");
        ledger->say_opening();
    });
    const Json shared = Json::parse(session.broadcast_text(ledger ? Json({{"state", ledger->state().to_json()},
                                                                          {"attributes", ledger->attributes()},
                                                                          {"complete", ledger->complete()}})
                                                                        .dump()
                                                                  : std::string()));
    if (shared["complete"].get<bool>()) {
        progress.line("the run in " + options.output.string() + " is complete; nothing to do (--fresh starts over)");
        return 0;
    }
    const RunFolder run(options.output);
    const FinetuneState state = FinetuneState::from_json(shared["state"]);
    const auto attributes = shared["attributes"].get<std::map<std::string, std::string>>();
    const bool complete = finetune_model({.session = session,
                                          .training = training,
                                          .ledger = ledger.get(),
                                          .run = run,
                                          .state = state,
                                          .attributes = attributes,
                                          .progress = progress,
                                          .host_threads = chosen.host_threads});
    if (!complete) {
        const std::vector<int> signals = session.world().all_gather_value(stop_signal());
        const auto heard = std::ranges::find_if(signals, [](int signal) { return signal != 0; });
        progress.line("stopped by " + (heard == signals.end() ? "a signal" : name_of_signal(*heard)) +
                      " after a checkpoint; the same command continues");
        return static_cast<int>(ExitStatus::interrupted);
    }
    const std::string written = options.output.string();
    progress.line("");
    progress.line("written to " + written + "; next: espalier evaluate --model " + written +
                  " --tokens FILE, espalier export --run " + written + " --output DIR" +
                  (options.train == TrainedPart::lora ? " --adapter" : ""));
    return 0;
}

}  // namespace espalier
