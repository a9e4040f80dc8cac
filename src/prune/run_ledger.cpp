#include "src/prune/run_ledger.h"

#include "io/checksum.h"
#include "io/file.h"
#include "io/hdf5_handle.h"
#include "src/base/version.h"
#include "src/prune/block_report.h"
#include "src/weights/synthetic_source.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

namespace espalier {

namespace {

FileRecord write_outer_file(const RunFolder& run, const ModelSource& source) {
    const std::filesystem::path temporary = run.path() / (std::string(RunFolder::outer_file) + ".tmp");
    Hdf5Writer file(temporary);
    for (const OuterTensor tensor : {OuterTensor::embedding, OuterTensor::final_norm, OuterTensor::head}) {
        if (tensor == OuterTensor::head && !source.has_own_head()) continue;
        const std::string path = hdf5_path(source.layout().outer_name(tensor));
        const DType dtype = source.outer_dtype(tensor);
        const std::size_t rows = source.outer_rows(tensor), columns = source.outer_columns(tensor);
        const bool vector = tensor == OuterTensor::final_norm;
        file.create(path, dtype, vector ? std::vector<std::uint64_t>{rows} : std::vector<std::uint64_t>{rows, columns});
        const std::size_t row_bytes = source.outer_row_bytes(tensor), panel = source.outer_panel_rows(tensor);
        std::vector<std::byte> data;
        for (std::size_t first = 0; first < rows; first += panel) {
            const std::size_t count = std::min(panel, rows - first);
            data.resize(count * row_bytes);
            source.read_outer_rows(tensor, first, count, data);
            file.write_rows(path, first, count, data);
        }
    }
    file.close();
    return run.commit_file(temporary, RunFolder::outer_file);
}

}  // namespace

Json RunState::to_json() const {
    Json list = Json::array();
    for (const auto& [block, record] : committed) list.push_back({block, record.file, record.bytes, record.xxh3});
    return {{"committed", list}, {"learning_rate", learning_rate ? Json(*learning_rate) : Json()}};
}

RunState RunState::from_json(const Json& json) {
    RunState state;
    for (const Json& entry : json.at("committed")) {
        state.committed[entry.at(0).get<std::size_t>()] = {
            entry.at(1).get<std::string>(), entry.at(2).get<std::uint64_t>(), entry.at(3).get<std::string>()};
    }
    if (!json.at("learning_rate").is_null()) state.learning_rate = json.at("learning_rate").get<double>();
    return state;
}

RunLedger::RunLedger(const PruneOptions& options, const ModelSource& source, const RunFacts& facts, Progress& progress)
    : options_(options),
      facts_(facts),
      progress_(progress),
      run_(options.output),
      model_type_(source.config().model_type),
      block_weights_(source.layout().weights()) {
    refuse_output_in(options.output, source, "--model");
    run_.prepare(source.config_text());
    const std::string run_id = new_run_id();
    lock_ = std::make_unique<RunLock>(run_, run_id);
    if (!lock_->warning().empty()) opening_.push_back("warning: " + lock_->warning());
    if (!lock_->takeover().empty()) opening_.push_back(lock_->takeover());
    if (options_.fresh) run_.clear();
    manifest_.run_id = run_id;
    start_or_resume(source);
    events_ = std::make_unique<EventLog>(run_.path() / "events.jsonl");
    events_->write("start", {{"run_id", manifest_.run_id},
                             {"command_line", facts_.command_line},
                             {"options", facts_.options_with_origins},
                             {"ranks", facts_.ranks},
                             {"process", ::getpid()},
                             {"blocks_done", manifest_.blocks.size()}});
    const BlockLayout& layout = source.layout();
    outer_names_ = {layout.outer_name(OuterTensor::embedding), layout.outer_name(OuterTensor::final_norm)};
    for (std::size_t block = 0; block < source.config().blocks.size(); ++block) {
        block_names_.push_back(layout.block_name(block));
    }
    if (source.has_own_head()) outer_names_.push_back(layout.outer_name(OuterTensor::head));
}

void RunLedger::start_or_resume(const ModelSource& source) {
    const Json deciding = options_.deciding_values(facts_.computed_on);
    const std::string model_identity = source.identity();
    if (run_.has_manifest()) {
        Manifest held = Manifest::read(run_);
        Json before = held.options, now = deciding;
        before["model"] = held.model_identity;
        before["calibration tokens"] = held.calibration_sha256;
        before["program version"] = held.program_version;
        now["program version"] = program_version;
        now["model"] = model_identity;
        now["calibration tokens"] = facts_.calibration_sha256;
        refuse_other_snapshot(run_.path(), held.model_path, options_.model, "--model");
        refuse_differences(run_.path(), before, now);
        manifest_ = std::move(held);
        seconds_before_ = manifest_.provenance.value("seconds", 0.0);
    }
    const std::size_t done_before = manifest_.blocks.size();
    manifest_.program_version = program_version;
    manifest_.model_path = lasting_name(options_.model);
    manifest_.model_identity = model_identity;
    manifest_.calibration_path = lasting_name(options_.calibration);
    manifest_.calibration_sha256 = facts_.calibration_sha256;
    manifest_.blocks_in_model = source.config().blocks.size();
    manifest_.options = deciding;
    if (manifest_.complete) return;
    write_text_atomically(run_.path() / "config.json", source.config_text());
    save();
    if (done_before > 0) {
        opening_.push_back(
            fmt::format("resuming: {} of {} blocks are finished", done_before, manifest_.blocks_in_model));
    }
}

void RunLedger::say_opening() const {
    for (const std::string& line : opening_) progress_.line(line);
}

RunState RunLedger::state() const {
    RunState state;
    for (const auto& [block, record] : manifest_.blocks) state.committed[block] = record.file;
    if (!manifest_.learning_rate.is_null()) {
        state.learning_rate = LearningRateChoice::from_json(manifest_.learning_rate).learning_rate;
    }
    return state;
}

std::map<std::string, std::string> RunLedger::block_attributes() const {
    return {{"format", "espalier-block"},
            {"format_version", "1"},
            {"program_version", std::string(program_version)},
            {"method", std::string(name_of(options_.method))},
            {"pattern", options_.pattern.name()},
            {"options", options_.deciding_values(facts_.computed_on).dump()},
            {"model_identity", manifest_.model_identity},
            {"calibration_sha256", manifest_.calibration_sha256},
            {"mask_encoding", "1 = kept; eight columns a byte, lowest bit first, rows padded to whole bytes"}};
}

void RunLedger::save() {
    manifest_.provenance = facts_.provenance();
    manifest_.provenance["seconds"] = seconds_before_ + since_start_.seconds();
    manifest_.write(run_);
}

void RunLedger::keep_calibration(const TokenTable& table, const DrawingRecipe& recipe) {
    enter(keep_drawn_tokens(run_, table, recipe));
    save();
}

void RunLedger::enter(const FileRecord& record) {
    std::erase_if(manifest_.outer_files, [&](const FileRecord& other) { return other.file == record.file; });
    manifest_.outer_files.push_back(record);
}

void RunLedger::start_outer_file(const ModelSource& source) {
    outer_file_ = std::async(std::launch::async, [this, &source] { return write_outer_file(run_, source); });
}

void RunLedger::take_outer_file(bool wait) {
    if (!outer_file_.valid()) return;
    if (wait || outer_file_.wait_for(std::chrono::seconds(0)) == std::future_status::ready) {
        enter(outer_file_.get());
    }
}

void RunLedger::record_learning_rate(const LearningRateChoice& choice) {
    events_->write("learning_rate", choice.to_json());
    manifest_.learning_rate = choice.to_json();
    save();
    progress_.line(
        fmt::format("learning rate {:g} chosen on held-out samples of the first block:", choice.learning_rate));
    for (const LearningRateCandidate& candidate : choice.candidates) {
        progress_.line(
            fmt::format("  {:>7.0e}  output error {:.4e}", candidate.learning_rate, candidate.held_out_error));
    }
    for (const auto& [block, record] : std::exchange(early_blocks_, {})) record_block(block, record);
}

void RunLedger::record_block(std::size_t block, const BlockRecord& record) {
    const WrittenReport report = WrittenReport::from_json(record.metrics);
    const bool searches = options_.method.optimises_regionally() && !options_.ro.learning_rate;
    if (searches && manifest_.learning_rate.is_null() && report.pruned) {
        // It came from another rank before the rate did; a manifest with one but not the other could not be resumed.
        early_blocks_.emplace_back(block, record);
        return;
    }
    // Events first: a kill between the two repeats them, the other way round it would lose them.
    for (std::size_t round = 0; round < report.draws.size(); ++round) {
        events_->write("draw", {{"block", block}, {"round", round}, {"samples", report.draws[round]}});
    }
    events_->write("block", record.metrics);
    manifest_.blocks[block] = record;
    save();
    take_outer_file(false);
    std::size_t to_prune = 0;
    for (std::size_t other = 0; other < manifest_.blocks_in_model; ++other) {
        if (options_.prunes(other) && !manifest_.blocks.contains(other)) ++to_prune;
    }
    progress_.block(record.metrics, manifest_.blocks.size(), manifest_.blocks_in_model, to_prune);
}

Json RunLedger::metrics(std::size_t peak_resident_bytes) const {
    Json blocks = Json::array();
    double flops = 0;
    for (const auto& [index, record] : manifest_.blocks) {
        blocks.push_back(record.metrics);
        flops += record.metrics.at("flops").get<double>();  // checked by Manifest::read
    }
    return {{"format", "espalier-metrics"},
            {"version", 1},
            {"program_version", program_version},
            {"run_id", manifest_.run_id},
            {"method", name_of(options_.method)},
            {"pattern", options_.pattern.name()},
            {"sparsity", options_.pattern.sparsity},
            {"model",
             {{"path", options_.model.string()},
              {"model_type", model_type_},
              {"blocks", manifest_.blocks_in_model},
              {"block_weights", block_weights_}}},
            {"calibration",
             {{"path", options_.calibration.string()},
              {"samples", options_.samples},
              {"sequence_length", options_.sequence_length},
              {"sha256", facts_.calibration_sha256}}},
            {"device", facts_.device},
            {"ranks", facts_.ranks},
            {"threads_per_rank", facts_.threads_per_rank},
            {"options", facts_.options_with_origins},
            {"command_line", facts_.command_line},
            {"learning_rate", manifest_.learning_rate},
            {"total_seconds", seconds_before_ + since_start_.seconds()},
            {"peak_resident_bytes", peak_resident_bytes},
            {"flops", flops},
            {"blocks", blocks}};
}

void RunLedger::leave() {
    take_outer_file(true);
    save();
    events_->write("stop", {{"blocks_done", manifest_.blocks.size()}});
}

Json RunLedger::finish(std::size_t peak_resident_bytes) {
    take_outer_file(true);
    enter(run_.write_linked_file(block_names_, outer_names_));
    enter(run_.record_of("config.json"));
    Json content = metrics(peak_resident_bytes);
    write_text_atomically(run_.path() / "metrics.json", content.dump(1) + "\n");
    manifest_.complete = true;
    save();
    events_->write("finish", {{"seconds", content.at("total_seconds")}, {"peak_resident_bytes", peak_resident_bytes}});
    return content;
}

}  // namespace espalier
