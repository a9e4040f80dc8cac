#include "src/finetune/finetune_ledger.h"

#include "io/file.h"
#include "src/base/version.h"

#include <fmt/format.h>
#include <unistd.h>

namespace espalier {

namespace {

/// What it took to prune the model, which was the first part of the same run.
Json metrics_of_pruning(const RunFolder& run) {
    const std::filesystem::path path = run.pruned().path() / "metrics.json";
    constexpr std::uint64_t limit = 256U << 20;
    const Json pruned = Json::parse_or_null(read_text(path, limit));
    return {{"total_seconds", pruned.value("total_seconds", 0.0)},
            {"peak_resident_bytes", pruned.value("peak_resident_bytes", std::uint64_t{0})}};
}

}  // namespace

Json FinetuneState::to_json() const {
    Json files = Json::array();
    for (const auto& [unit, record] : checkpoint) files.push_back({unit, record.file, record.bytes, record.xxh3});
    return {{"progress", progress.to_json()}, {"checkpoint", files}};
}

FinetuneState FinetuneState::from_json(const Json& json) {
    FinetuneState state;
    state.progress = FinetuneProgress::from_json(json.at("progress"));
    for (const Json& entry : json.at("checkpoint")) {
        state.checkpoint[entry.at(0).get<std::size_t>()] = {
            entry.at(1).get<std::string>(), entry.at(2).get<std::uint64_t>(), entry.at(3).get<std::string>()};
    }
    return state;
}

FinetuneLedger::FinetuneLedger(const FinetuneOptions& options, const ModelSource& student, const ModelSource* teacher,
                               const FinetuneFacts& facts, Progress& progress)
    : options_(options),
      student_(student),
      teacher_(teacher),
      facts_(facts),
      progress_(progress),
      run_(options.output) {
    refuse_output_in(options.output, student, "--model");
    if (teacher != nullptr) refuse_output_in(options.output, *teacher, "--teacher");
    run_.prepare(student.config_text());
    manifest_.run_id = new_run_id();
    lock_ = std::make_unique<RunLock>(run_, manifest_.run_id);
    if (!lock_->warning().empty()) opening_.push_back("warning: " + lock_->warning());
    if (!lock_->takeover().empty()) opening_.push_back(lock_->takeover());
    if (options_.fresh) run_.clear();
    start_or_resume();
    events_ = std::make_unique<EventLog>(run_.path() / "events.jsonl");
    events_->write("start", {{"run_id", manifest_.run_id},
                             {"command_line", facts_.command_line},
                             {"options", facts_.options_with_origins},
                             {"ranks", facts_.ranks},
                             {"process", ::getpid()},
                             {"steps_taken", manifest_.progress.steps.size()}});
}

void FinetuneLedger::start_or_resume() {
    const Json deciding = options_.deciding_values(facts_.arithmetic);
    const std::string identity = student_.identity(), of_teacher = teacher_ == nullptr ? "" : teacher_->identity();
    if (run_.has_manifest()) {
        FinetuneManifest held = FinetuneManifest::read(run_);
        Json before = held.options, now = deciding;
        before["model"] = held.base_identity;
        before["teacher"] = held.teacher_identity;
        before["data"] = held.data_sha256;
        before["program version"] = held.program_version;
        now["model"] = identity;
        now["teacher"] = of_teacher;
        now["data"] = facts_.data_sha256;
        now["program version"] = program_version;
        refuse_other_snapshot(run_.path(), held.base_path, student_.path(), "--model");
        if (teacher_ != nullptr) {
            refuse_other_snapshot(run_.path(), held.teacher_path, teacher_->path(), "--teacher");
        }
        refuse_differences(run_.path(), before, now);
        manifest_ = std::move(held);
        seconds_before_ = manifest_.provenance.value("seconds", 0.0);
        flops_before_ = manifest_.provenance.value("flops", 0.0);
    }
    manifest_.program_version = program_version;
    // What lies in the run's own folder goes with it, wherever that is moved.
    const bool is_inside =
        std::filesystem::weakly_canonical(student_.path()) == std::filesystem::weakly_canonical(run_.pruned().path());
    manifest_.base_path = is_inside ? RunFolder::pruned_folder : lasting_name(student_.path());
    manifest_.base_identity = identity;
    manifest_.blocks_in_model = student_.config().blocks.size();
    manifest_.teacher_path = teacher_ == nullptr ? "" : lasting_name(teacher_->path());
    manifest_.teacher_identity = of_teacher;
    manifest_.data_path = lasting_name(options_.data);
    manifest_.data_sha256 = facts_.data_sha256;
    manifest_.options = deciding;
    if (manifest_.complete) return;
    write_text_atomically(run_.path() / "config.json", student_.config_text());
    save();
    run_.remove_checkpoints(manifest_.checkpoint_step);
    if (manifest_.checkpoint_step) {
        opening_.push_back(
            fmt::format("resuming: {} of {} steps are taken", *manifest_.checkpoint_step, options_.steps));
    }
}

void FinetuneLedger::say_opening() const {
    for (const std::string& line : opening_) progress_.line(line);
}

FinetuneState FinetuneLedger::state() const {
    return {manifest_.progress, manifest_.checkpoint};
}

std::map<std::string, std::string> FinetuneLedger::attributes() const {
    return {{"format", "espalier-finetuned-block"},
            {"format_version", "1"},
            {"program_version", std::string(program_version)},
            {"options", options_.deciding_values(facts_.arithmetic).dump()},
            {"base_identity", manifest_.base_identity},
            {"data_sha256", manifest_.data_sha256}};
}

void FinetuneLedger::save() {
    manifest_.provenance = facts_.provenance();
    manifest_.provenance["flops"] = flops_before_ + flops_;
    manifest_.provenance["seconds"] = seconds();
    manifest_.write(run_);
}

void FinetuneLedger::keep_data(const TokenTable& table, const DrawingRecipe& recipe) {
    manifest_.outer_files = {keep_drawn_tokens(run_, table, recipe)};
    save();
}

void FinetuneLedger::record_step(std::size_t step, const StepRecord& record, double seconds) {
    events_->write("step", {{"step", step},
                            {"language_model", record.language_model},
                            {"divergence", record.divergence},
                            {"gradient_norm", record.gradient_norm},
                            {"seconds", seconds}});
}

void FinetuneLedger::record_look(const HeldOutRecord& look) {
    events_->write("held_out", {{"steps", look.steps},
                                {"language_model", look.language_model},
                                {"divergence", look.divergence},
                                {"total", look.total}});
}

void FinetuneLedger::commit_checkpoint(std::size_t step, const FinetuneProgress& progress,
                                       const std::map<std::size_t, FileRecord>& files, double flops) {
    flops_ = flops;
    manifest_.progress = progress;
    manifest_.checkpoint_step = step;
    manifest_.checkpoint = files;
    save();
    run_.remove_checkpoints(step);
    events_->write("checkpoint", {{"steps", step}});
}

void FinetuneLedger::note_stop(std::size_t step) {
    events_->write("stop", {{"steps_taken", step}});
}

Json FinetuneLedger::metrics(const FinetuneCosts& costs) const {
    const std::optional<std::size_t> best = manifest_.progress.best_look();
    return {{"format", "espalier-finetune-metrics"},
            {"version", 1},
            {"run_id", manifest_.run_id},
            {"model", {{"path", manifest_.base_path}, {"type", student_.config().model_type}}},
            {"teacher", manifest_.teacher_path},
            {"data", {{"path", manifest_.data_path}, {"sha256", manifest_.data_sha256}}},
            {"options", facts_.options_with_origins},
            {"decided_by", manifest_.options},
            {"command_line", facts_.command_line},
            {"device", facts_.device},
            {"ranks", facts_.ranks},
            {"threads_per_rank", facts_.threads_per_rank},
            {"trained_values", costs.trained_values},
            {"curves", manifest_.progress.to_json()},
            {"best_steps", best ? Json(manifest_.progress.looks[*best].steps) : Json()},
            {"total_seconds", seconds()},
            {"pruning", manifest_.base_path == RunFolder::pruned_folder ? metrics_of_pruning(run_) : Json()},
            {"flops", flops_before_ + costs.flops},
            {"peak_bytes", costs.peak_bytes},
            {"peak_resident_bytes", costs.peak_resident_bytes}};
}

void FinetuneLedger::finish(const FinetuneProgress& progress, const std::map<std::size_t, FileRecord>& files,
                            const FinetuneCosts& costs) {
    flops_ = costs.flops;
    manifest_.progress = progress;
    manifest_.checkpoint_step.reset();
    manifest_.checkpoint.clear();
    manifest_.blocks = files;
    std::vector<RunFolder::Link> links;
    for (const auto& [unit, record] : files) {
        const bool end = unit == manifest_.blocks_in_model;
        links.push_back({hdf5_path(end ? student_.layout().outer_name(OuterTensor::final_norm)
                                       : student_.layout().block_name(unit)),
                         record.file});
    }
    manifest_.outer_files.push_back(run_.write_links(RunFolder::adapters_file, links));
    manifest_.outer_files.push_back(run_.record_of("config.json"));
    write_text_atomically(run_.path() / "metrics.json", metrics(costs).dump(1) + "\n");
    manifest_.complete = true;
    save();
    run_.remove_checkpoints(std::nullopt);
    events_->write("finish", {{"seconds", seconds()}, {"steps", progress.steps.size()}});
}

}  // namespace espalier
