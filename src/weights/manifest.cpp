#include "src/weights/manifest.h"

#include "io/checksum.h"
#include "src/base/error.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <string_view>

namespace espalier {

namespace {

constexpr int manifest_version = 1;

std::uint64_t unsigned_field(const Json& json, const char* name, const std::string& source) {
    if (!json.at(name).is_number_unsigned()) {
        throw InputError(source + " is damaged ('" + name + "' is not a non-negative integer)");
    }
    return json.at(name).get<std::uint64_t>();
}

/// What readers of a manifest rely on.
void check_metrics(const Json& metrics, const std::function<void(const std::string&)>& refuse) {
    const auto is_object_of_numbers = [](const Json& value) {
        return value.is_object() && std::all_of(value.items().begin(), value.items().end(),
                                                [](const auto& item) { return item.second.is_number(); });
    };
    for (const char* const name :
         {"pruned", "sparsity", "error_final", "error_after_first_mask", "flops", "seconds", "peak_bytes"}) {
        const Json* metric = metrics.find(name);
        if (metric == nullptr) return refuse(std::string(" has no metric ") + name);
        const std::string_view which = name;
        const bool fits = which == "pruned"                           ? metric->is_boolean()
                          : which == "sparsity" || which == "seconds" ? is_object_of_numbers(*metric)
                                                                      : metric->is_number();
        if (!fits)
            return refuse(std::string(" has a metric of the wrong kind, ") + name + " " +
                          metric->ascii().substr(0, 100));
    }
}

}  // namespace

Json to_json(const FileRecord& record) {
    return {{"file", record.file}, {"bytes", record.bytes}, {"xxh3_128", record.xxh3}};
}

FileRecord file_record_from(const Json& json, const std::string& source) {
    return {json.at("file").get<std::string>(), unsigned_field(json, "bytes", source),
            json.at("xxh3_128").get<std::string>()};
}

void verify_file(const RunFolder& run, const FileRecord& record) {
    const std::string path = (run.path() / record.file).string();
    if (!std::filesystem::exists(path)) throw InputError(path + " is missing, though the manifest names it");
    const FileRecord found = run.record_of(record.file);
    if (found.bytes != record.bytes || found.xxh3 != record.xxh3) {
        throw InputError(path +
                         " is not the file that the manifest names (size or checksum differs); restore it, or start "
                         "over with --fresh");
    }
}

Manifest Manifest::read(const RunFolder& run) {
    return from_json(run.read_manifest(), (run.path() / "manifest.json").string());
}

Json Manifest::to_json() const {
    Json block_list = Json::array();
    for (const auto& [index, record] : blocks) {
        Json entry = espalier::to_json(record.file);
        entry["index"] = index;
        entry["metrics"] = record.metrics;
        block_list.push_back(std::move(entry));
    }
    Json outer = Json::array();
    for (const FileRecord& record : outer_files) outer.push_back(espalier::to_json(record));
    return {{"format", RunFolder::manifest_format},
            {"version", manifest_version},
            {"run_id", run_id},
            {"program_version", program_version},
            {"model", {{"path", model_path}, {"identity", model_identity}, {"blocks", blocks_in_model}}},
            {"calibration", {{"path", calibration_path}, {"sha256", calibration_sha256}}},
            {"options", options},
            {"configuration_sha256", configuration_sha256()},
            {"provenance", provenance},
            {"learning_rate", learning_rate},
            {"blocks", block_list},
            {"outer_files", outer},
            {"complete", complete}};
}

std::string Manifest::configuration_sha256() const {
    return sha256(Json::array({program_version, model_identity, calibration_sha256, options}).dump());
}

void Manifest::check(std::size_t listed_blocks, const std::string& source) const {
    const auto refuse = [&](const std::string& what) { throw InputError(source + " is damaged (" + what + ")"); };
    if (!options.is_object() || !provenance.is_object()) refuse("options or provenance is not an object");
    for (const char* const name : {"method", "pattern", "sparsity"}) {
        if (!options.contains(name)) refuse(std::string("options has no ") + name);
    }
    if (listed_blocks != blocks.size()) refuse("a block is listed twice");
    for (const auto& [index, record] : blocks) {
        const std::string block = "block " + std::to_string(index);
        if (index >= blocks_in_model) refuse(block + " is not one of the model's");
        if (record.file.file != RunFolder::block_file(index)) refuse(block + " has a wrong file name");
        check_metrics(record.metrics, [&](const std::string& what) { refuse(block + what); });
    }
    if (!complete) return;
    if (blocks.size() != blocks_in_model) {
        refuse("it is called complete with " + std::to_string(blocks.size()) + " of " +
               std::to_string(blocks_in_model) + " blocks");
    }
    for (const char* const name : {RunFolder::outer_file, RunFolder::linked_file, "config.json"}) {
        const auto same_name = [&](const FileRecord& record) { return record.file == name; };
        if (std::find_if(outer_files.begin(), outer_files.end(), same_name) == outer_files.end()) {
            refuse(std::string("it is called complete without ") + name);
        }
    }
}

Manifest Manifest::from_json(const Json& json, const std::string& source) {
    Manifest manifest;
    try {
        if (json.at("format").get<std::string>() != RunFolder::manifest_format) {
            throw InputError(source + " is not an Espalier manifest (format '" + json.at("format").get<std::string>() +
                             "')");
        }
        if (json.at("version").get<int>() != manifest_version) {
            throw InputError(source + " has version " + json.at("version").dump() + "; this program reads version " +
                             std::to_string(manifest_version));
        }
        manifest.run_id = json.at("run_id").get<std::string>();
        manifest.program_version = json.at("program_version").get<std::string>();
        manifest.model_path = json.at("model").at("path").get<std::string>();
        manifest.model_identity = json.at("model").at("identity").get<std::string>();
        manifest.blocks_in_model = unsigned_field(json.at("model"), "blocks", source);
        manifest.calibration_path = json.at("calibration").at("path").get<std::string>();
        manifest.calibration_sha256 = json.at("calibration").at("sha256").get<std::string>();
        manifest.options = json.at("options");
        manifest.provenance = json.at("provenance");
        manifest.learning_rate = json.at("learning_rate");
        for (const Json& entry : json.at("blocks")) {
            manifest.blocks[unsigned_field(entry, "index", source)] = {file_record_from(entry, source),
                                                                       entry.at("metrics")};
        }
        for (const Json& entry : json.at("outer_files"))
            manifest.outer_files.push_back(file_record_from(entry, source));
        manifest.complete = json.at("complete").get<bool>();
        manifest.check(json.at("blocks").size(), source);
        if (json.at("configuration_sha256").get<std::string>() != manifest.configuration_sha256()) {
            throw InputError(source + " is damaged (configuration_sha256 is not that of its options and model)");
        }
    } catch (const Json::Error& error) {
        throw InputError(source + " is damaged (" + error.what() + ")");
    }
    return manifest;
}

}  // namespace espalier
