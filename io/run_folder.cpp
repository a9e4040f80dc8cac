#include "io/run_folder.h"

#include "io/checksum.h"
#include "io/file.h"
#include "io/hdf5_handle.h"
#include "src/base/error.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <functional>
#include <string_view>

namespace espalier {

namespace {

constexpr const char* manifest_format = "espalier-run";
constexpr int manifest_version = 1;
constexpr std::uint64_t manifest_limit = 256u << 20;

/// What a run writes beside its blocks; the manifest is last in the order of removal.
constexpr std::array run_files = {"config.json",  "config.json.tmp",   "metrics.json",     "metrics.json.tmp",
                                  "events.jsonl", "non_block.h5",      "non_block.h5.tmp", "model.h5",
                                  "model.h5.tmp", "manifest.json.tmp", "manifest.json"};

/// 00042.h5 or 00042.h5.tmp.
bool is_block_file(const std::string& name) {
    const std::size_t digits = name.find_first_not_of("0123456789");
    if (digits == std::string::npos || digits < 5) return false;
    return name.substr(digits) == ".h5" || name.substr(digits) == ".h5.tmp";
}

Json to_json(const FileRecord& record) {
    return {{"file", record.file}, {"bytes", record.bytes}, {"xxh3_128", record.xxh3}};
}

std::uint64_t unsigned_field(const Json& json, const char* name, const std::string& source) {
    if (!json.at(name).is_number_unsigned()) {
        throw InputError(source + " is damaged ('" + name + "' is not a non-negative integer)");
    }
    return json.at(name).get<std::uint64_t>();
}

FileRecord file_record_from(const Json& json, const std::string& source) {
    return {json.at("file").get<std::string>(), unsigned_field(json, "bytes", source),
            json.at("xxh3_128").get<std::string>()};
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

bool is_a_manifest(const std::string& text) {
    const Json json = Json::parse_or_null(text);
    return json.contains("format") && json["format"] == manifest_format;
}

}  // namespace

std::string hdf5_path(const std::string& tensor_name) {
    std::string path = "/" + tensor_name;
    std::replace(path.begin(), path.end(), '.', '/');
    return path;
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
    return {{"format", manifest_format},
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
        if (json.at("format").get<std::string>() != manifest_format) {
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

std::string RunFolder::block_file(std::size_t block) {
    std::array<char, 32> name{};
    std::snprintf(name.data(), name.size(), "blocks/%05zu.h5", block);
    return name.data();
}

Manifest RunFolder::read_manifest() const {
    const std::filesystem::path path = path_ / "manifest.json";
    if (!has_manifest()) throw InputError(path_.string() + " is not a run folder: it has no manifest.json");
    return Manifest::from_json(parse_strict_json(read_text(path, manifest_limit), path.string()), path.string());
}

void RunFolder::write_manifest(const Manifest& manifest) const {
    const std::filesystem::path path = path_ / "manifest.json";
    Json json = manifest.to_json();
    json["previous_manifest_sha256"] = has_manifest() ? Json(sha256(read_text(path, manifest_limit))) : Json();
    write_text_atomically(path, json.dump(1) + "\n");
}

bool RunFolder::has_manifest() const {
    std::error_code error;
    return std::filesystem::exists(path_ / "manifest.json", error);
}

void RunFolder::prepare(const std::string& config_text) const {
    std::error_code error;
    if (std::filesystem::exists(path_, error) && !std::filesystem::is_directory(path_, error)) {
        throw InputError("--output " + path_.string() + " exists and is not a folder");
    }
    if (std::filesystem::is_directory(path_, error) && !has_manifest()) {
        for (const auto& item : std::filesystem::directory_iterator(path_)) {
            const std::string name = item.path().filename().string();
            const bool starting = name == "lock" || name == "config.json.tmp" || name == "manifest.json.tmp";
            const bool same_config = name == "config.json" && read_text(item.path(), manifest_limit) == config_text;
            const bool empty_blocks = name == "blocks" && item.is_directory() && std::filesystem::is_empty(item.path());
            if (!starting && !same_config && !empty_blocks) {
                throw InputError("--output " + path_.string() + " holds '" + name +
                                 "', which no run of this program wrote; choose a new or empty folder");
            }
        }
    }
    if (has_manifest()) {
        if (!is_a_manifest(read_text(path_ / "manifest.json", manifest_limit))) {
            throw InputError(
                "--output " + path_.string() +
                " holds a manifest.json that no run of this program wrote, or a damaged one; choose another folder");
        }
    }
    std::filesystem::create_directories(path_ / "blocks", error);
    if (error) throw InputError("--output " + path_.string() + " cannot be created: " + error.message());
}

void RunFolder::clear() const {
    if (!has_manifest()) return;
    if (std::filesystem::is_directory(path_ / "blocks")) {
        std::vector<std::filesystem::path> stale;
        for (const auto& item : std::filesystem::directory_iterator(path_ / "blocks")) {
            if (is_block_file(item.path().filename().string())) stale.push_back(item.path());
        }
        for (const auto& path : stale) std::filesystem::remove(path);
    }
    for (const char* const name : run_files) std::filesystem::remove(path_ / name);
}

FileRecord RunFolder::commit_file(const std::filesystem::path& temporary, const std::string& file) const {
    sync_file(temporary);
    FileRecord record{file, std::filesystem::file_size(temporary), xxh3_128_of_file(temporary)};
    rename_durably(temporary, path_ / file);
    return record;
}

FileRecord RunFolder::commit_block(std::size_t block, const std::vector<FileTensor>& tensors,
                                   const std::map<std::string, std::string>& attributes,
                                   const std::function<void(const std::filesystem::path&)>& audit, int threads) const {
    const std::filesystem::path temporary = block_path(block).string() + ".tmp";
    Hdf5Writer file(temporary, threads);
    for (const FileTensor& tensor : tensors)
        file.write(hdf5_path(tensor.name), tensor.dtype, tensor.shape, tensor.data);
    for (const auto& [name, value] : attributes) file.attribute("/", name, value);
    file.close();
    sync_file(temporary);
    audit(temporary);
    return commit_file(temporary, block_file(block));
}

FileRecord RunFolder::write_linked_file(std::size_t blocks, const std::vector<std::string>& outer_tensors) const {
    const std::filesystem::path temporary = path_ / (std::string(linked_file) + ".tmp");
    Hdf5Writer file(temporary);
    for (std::size_t block = 0; block < blocks; ++block) {
        const std::string group = "/model/layers/" + std::to_string(block);
        file.external_link(group, block_file(block), group);
    }
    for (const std::string& name : outer_tensors) {
        file.external_link(hdf5_path(name), outer_file, hdf5_path(name));
    }
    file.close();
    return commit_file(temporary, linked_file);
}

FileRecord RunFolder::record_of(const std::string& file) const {
    return {file, std::filesystem::file_size(path_ / file), xxh3_128_of_file(path_ / file)};
}

}  // namespace espalier
