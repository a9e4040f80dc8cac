#include "src/weights/finetune_manifest.h"

#include "io/checksum.h"
#include "src/base/error.h"
#include "src/weights/synthetic_source.h"

#include <algorithm>
#include <functional>
#include <utility>

namespace espalier {

namespace {

constexpr int finetune_manifest_version = 1;

Json list_of(const std::map<std::size_t, FileRecord>& records) {
    Json list = Json::array();
    for (const auto& [index, record] : records) {
        Json entry = to_json(record);
        entry["index"] = index;
        list.push_back(std::move(entry));
    }
    return list;
}

std::map<std::size_t, FileRecord> records_from(const Json& list, const std::string& source) {
    std::map<std::size_t, FileRecord> records;
    for (const Json& entry : list) records[entry.at("index").get<std::size_t>()] = file_record_from(entry, source);
    return records;
}

/// What readers of a manifest rely on: units are blocks and the end of the model behind them, each once, in the file of
/// its name.
void check_files(const FinetuneManifest& manifest, const Json& json,
                 const std::function<void(const std::string&)>& refuse) {
    const auto check_units = [&](const std::map<std::size_t, FileRecord>& units, std::size_t listed,
                                 const std::function<std::string(std::size_t)>& file) {
        if (listed != units.size()) refuse("a block is listed twice");
        for (const auto& [unit, record] : units) {
            if (unit > manifest.blocks_in_model) refuse("block " + std::to_string(unit) + " is not one of the model's");
            if (record.file != file(unit)) refuse("block " + std::to_string(unit) + " has a wrong file name");
        }
    };
    check_units(manifest.blocks, json.at("blocks").size(), &RunFolder::block_file);
    if (manifest.checkpoint_step) {
        if (*manifest.checkpoint_step != manifest.progress.steps.size())
            refuse("its checkpoint is not of its last step");
        check_units(manifest.checkpoint, json.at("checkpoint").at("files").size(),
                    [&](std::size_t unit) { return RunFolder::checkpoint_file(*manifest.checkpoint_step, unit); });
    }
    if (!manifest.options.is_object() || !manifest.provenance.is_object())
        refuse("options or provenance is not an object");
    if (!manifest.complete) return;
    for (std::size_t block = 0; block < manifest.blocks_in_model; ++block) {
        if (!manifest.blocks.contains(block)) refuse("it is called complete without block " + std::to_string(block));
    }
    for (const char* const name : {RunFolder::adapters_file, "config.json"}) {
        if (std::ranges::none_of(manifest.outer_files, [&](const FileRecord& record) { return record.file == name; }))
            refuse(std::string("it is called complete without ") + name);
    }
}

}  // namespace

std::optional<std::size_t> FinetuneProgress::best_look() const {
    std::optional<std::size_t> best;
    for (std::size_t i = 0; i < looks.size(); ++i) {
        if (!best || looks[i].total < looks[*best].total) best = i;
    }
    return best;
}

std::size_t FinetuneProgress::looks_since_best() const {
    const std::optional<std::size_t> best = best_look();
    return best ? looks.size() - 1 - *best : 0;
}

Json FinetuneProgress::to_json() const {
    Json of_steps = Json::array(), of_looks = Json::array();
    for (const StepRecord& step : steps) {
        of_steps.push_back({{"language_model", step.language_model},
                            {"divergence", step.divergence},
                            {"gradient_norm", step.gradient_norm}});
    }
    for (const HeldOutRecord& look : looks) {
        of_looks.push_back({{"steps", look.steps},
                            {"language_model", look.language_model},
                            {"divergence", look.divergence},
                            {"total", look.total}});
    }
    return {{"steps", of_steps}, {"held_out", of_looks}};
}

FinetuneProgress FinetuneProgress::from_json(const Json& json) {
    FinetuneProgress progress;
    for (const Json& step : json.at("steps")) {
        progress.steps.push_back({step.at("language_model").get<double>(), step.at("divergence").get<double>(),
                                  step.at("gradient_norm").get<double>()});
    }
    for (const Json& look : json.at("held_out")) {
        progress.looks.push_back({look.at("steps").get<std::size_t>(), look.at("language_model").get<double>(),
                                  look.at("divergence").get<double>(), look.at("total").get<double>()});
    }
    return progress;
}

bool FinetuneManifest::is_in(const RunFolder& run) {
    if (!run.has_manifest()) return false;
    const Json manifest = run.read_manifest();
    return manifest.contains("format") && manifest["format"] == RunFolder::finetune_format;
}

FinetuneManifest FinetuneManifest::read(const RunFolder& run) {
    return from_json(run.read_manifest(), (run.path() / "manifest.json").string());
}

std::filesystem::path FinetuneManifest::base_of(const RunFolder& run) const {
    return SyntheticSource::is_named(base_path) ? std::filesystem::path(base_path) : run.path() / base_path;
}

std::string FinetuneManifest::configuration_sha256() const {
    return sha256(Json::array({program_version, base_identity, teacher_identity, data_sha256, options}).dump());
}

Json FinetuneManifest::to_json() const {
    Json outer = Json::array();
    for (const FileRecord& record : outer_files) outer.push_back(espalier::to_json(record));
    return {
        {"format", RunFolder::finetune_format},
        {"version", finetune_manifest_version},
        {"run_id", run_id},
        {"program_version", program_version},
        {"base", {{"path", base_path}, {"identity", base_identity}, {"blocks", blocks_in_model}}},
        {"teacher", {{"path", teacher_path}, {"identity", teacher_identity}}},
        {"data", {{"path", data_path}, {"sha256", data_sha256}}},
        {"options", options},
        {"configuration_sha256", configuration_sha256()},
        {"provenance", provenance},
        {"progress", progress.to_json()},
        {"checkpoint", {{"steps", checkpoint_step ? Json(*checkpoint_step) : Json()}, {"files", list_of(checkpoint)}}},
        {"blocks", list_of(blocks)},
        {"outer_files", outer},
        {"complete", complete}};
}

FinetuneManifest FinetuneManifest::from_json(const Json& json, const std::string& source) {
    FinetuneManifest manifest;
    const auto refuse = [&](const std::string& what) { throw InputError(source + " is damaged (" + what + ")"); };
    try {
        if (json.at("format").get<std::string>() != RunFolder::finetune_format) {
            throw InputError(source + " is not the manifest of a fine-tuning run (format '" +
                             json.at("format").get<std::string>() + "')");
        }
        if (json.at("version").get<int>() != finetune_manifest_version) {
            throw InputError(source + " has version " + json.at("version").dump() + "; this program reads version " +
                             std::to_string(finetune_manifest_version));
        }
        manifest.run_id = json.at("run_id").get<std::string>();
        manifest.program_version = json.at("program_version").get<std::string>();
        manifest.base_path = json.at("base").at("path").get<std::string>();
        manifest.base_identity = json.at("base").at("identity").get<std::string>();
        manifest.blocks_in_model = json.at("base").at("blocks").get<std::size_t>();
        manifest.teacher_path = json.at("teacher").at("path").get<std::string>();
        manifest.teacher_identity = json.at("teacher").at("identity").get<std::string>();
        manifest.data_path = json.at("data").at("path").get<std::string>();
        manifest.data_sha256 = json.at("data").at("sha256").get<std::string>();
        manifest.options = json.at("options");
        manifest.provenance = json.at("provenance");
        manifest.progress = FinetuneProgress::from_json(json.at("progress"));
        const Json& checkpoint = json.at("checkpoint");
        if (!checkpoint.at("steps").is_null()) manifest.checkpoint_step = checkpoint.at("steps").get<std::size_t>();
        manifest.checkpoint = records_from(checkpoint.at("files"), source);
        manifest.blocks = records_from(json.at("blocks"), source);
        for (const Json& entry : json.at("outer_files"))
            manifest.outer_files.push_back(file_record_from(entry, source));
        manifest.complete = json.at("complete").get<bool>();
        for (const char* const name : {"train", "rank", "alpha"}) {
            const bool of_low_rank = std::string(name) != "train";
            if (of_low_rank && manifest.options.at("train").get<std::string>() == "masked") continue;
            if (!manifest.options.contains(name)) refuse(std::string("options has no ") + name);
        }
        check_files(manifest, json, refuse);
        if (json.at("configuration_sha256").get<std::string>() != manifest.configuration_sha256())
            refuse("configuration_sha256 is not that of its options and model");
    } catch (const Json::Error& error) {
        refuse(error.what());
    }
    return manifest;
}

}  // namespace espalier
