#include "io/run_folder.h"

#include "io/checksum.h"
#include "io/file.h"
#include "io/hdf5_handle.h"
#include "src/base/error.h"

#include <algorithm>
#include <array>
#include <cstdio>

namespace espalier {

namespace {

constexpr std::uint64_t manifest_limit = 256u << 20;

/// What a run writes beside its blocks; the manifest is last in the order of removal.
constexpr std::array run_files = {"config.json",        "config.json.tmp",   "metrics.json",     "metrics.json.tmp",
                                  "events.jsonl",       "non_block.h5",      "non_block.h5.tmp", "model.h5",
                                  "model.h5.tmp",       "adapters.h5",       "adapters.h5.tmp",  "calibration.h5",
                                  "calibration.h5.tmp", "manifest.json.tmp", "manifest.json"};
constexpr const char* checkpoint_folder = "checkpoint";
constexpr const char* state_files = "optimizer-state-";

/// The number of steps that a checkpoint's file name begins with; none when it is no such name.
std::optional<std::size_t> step_of_checkpoint(const std::string& name) {
    std::size_t step = 0, unit = 0;
    int used = 0;
    if (std::sscanf(name.c_str(), "%zu-%zu.h5%n", &step, &unit, &used) != 2 || used == 0) return std::nullopt;
    const std::string rest = name.substr(static_cast<std::size_t>(used));
    if (!rest.empty() && rest != ".tmp") return std::nullopt;
    return step;
}

/// 00042.h5 or 00042.h5.tmp.
bool is_block_file(const std::string& name) {
    const std::size_t digits = name.find_first_not_of("0123456789");
    if (digits == std::string::npos || digits < 5) return false;
    return name.substr(digits) == ".h5" || name.substr(digits) == ".h5.tmp";
}

bool is_a_manifest(const std::string& text) {
    const Json json = Json::parse_or_null(text);
    return json.contains("format") &&
           (json["format"] == RunFolder::manifest_format || json["format"] == RunFolder::finetune_format);
}

}  // namespace

std::string hdf5_path(const std::string& tensor_name) {
    std::string path = "/" + tensor_name;
    std::replace(path.begin(), path.end(), '.', '/');
    return path;
}

std::string RunFolder::block_file(std::size_t block) {
    std::array<char, 32> name{};
    std::snprintf(name.data(), name.size(), "blocks/%05zu.h5", block);
    return name.data();
}

std::string RunFolder::state_file(int rank) {
    return std::string(state_files) + std::to_string(rank);
}

Json RunFolder::read_manifest() const {
    const std::filesystem::path path = path_ / "manifest.json";
    if (!has_manifest()) throw InputError(path_.string() + " is not a run folder: it has no manifest.json");
    return parse_strict_json(read_text(path, manifest_limit), path.string());
}

void RunFolder::write_manifest(Json manifest) const {
    const std::filesystem::path path = path_ / "manifest.json";
    manifest["previous_manifest_sha256"] = has_manifest() ? Json(sha256(read_text(path, manifest_limit))) : Json();
    write_text_atomically(path, manifest.dump(1) + "\n");
}

bool RunFolder::has_manifest() const {
    std::error_code error;
    return std::filesystem::exists(path_ / "manifest.json", error);
}

void RunFolder::refuse_other_content(const std::string& config_text) const {
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
            if (name == pruned_folder && item.is_directory()) {
                pruned().refuse_other_content(config_text);
                continue;
            }
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
}

void RunFolder::prepare(const std::string& config_text) const {
    refuse_other_content(config_text);
    std::error_code error;
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
    remove_checkpoints(std::nullopt);
    std::vector<std::filesystem::path> left;
    for (const auto& item : std::filesystem::directory_iterator(path_)) {
        if (item.path().filename().string().starts_with(state_files)) left.push_back(item.path());
    }
    for (const auto& path : left) std::filesystem::remove(path);
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
    return commit_tensors(block_file(block), tensors, attributes, audit, threads);
}

FileRecord RunFolder::commit_tensors(const std::string& name, const std::vector<FileTensor>& tensors,
                                     const std::map<std::string, std::string>& attributes,
                                     const std::function<void(const std::filesystem::path&)>& audit,
                                     int threads) const {
    const std::filesystem::path temporary = (path_ / name).string() + ".tmp";
    std::filesystem::create_directories(temporary.parent_path());
    Hdf5Writer file(temporary, threads);
    for (const FileTensor& tensor : tensors)
        file.write(hdf5_path(tensor.name), tensor.dtype, tensor.shape, tensor.data);
    for (const auto& [attribute, value] : attributes) file.attribute("/", attribute, value);
    file.close();
    sync_file(temporary);
    audit(temporary);
    return commit_file(temporary, name);
}

std::string RunFolder::checkpoint_file(std::size_t step, std::size_t unit) {
    std::array<char, 64> name{};
    std::snprintf(name.data(), name.size(), "%s/%06zu-%05zu.h5", checkpoint_folder, step, unit);
    return name.data();
}

void RunFolder::remove_checkpoints(std::optional<std::size_t> but_of_step) const {
    const std::filesystem::path folder = path_ / checkpoint_folder;
    if (!std::filesystem::is_directory(folder)) return;
    std::vector<std::filesystem::path> stale;
    for (const auto& item : std::filesystem::directory_iterator(folder)) {
        const std::optional<std::size_t> step = step_of_checkpoint(item.path().filename().string());
        if (step && step != but_of_step) stale.push_back(item.path());
    }
    for (const auto& path : stale) std::filesystem::remove(path);
    std::error_code not_empty;
    if (!but_of_step) std::filesystem::remove(folder, not_empty);
}

FileRecord RunFolder::write_linked_file(const std::vector<std::string>& blocks,
                                        const std::vector<std::string>& outer_tensors) const {
    std::vector<Link> links;
    for (std::size_t block = 0; block < blocks.size(); ++block) {
        links.push_back({hdf5_path(blocks[block]), block_file(block)});
    }
    for (const std::string& name : outer_tensors) links.push_back({hdf5_path(name), outer_file});
    return write_links(linked_file, links);
}

FileRecord RunFolder::write_links(const std::string& name, const std::vector<Link>& links) const {
    const std::filesystem::path temporary = path_ / (name + ".tmp");
    Hdf5Writer file(temporary);
    for (const Link& link : links) file.external_link(link.object, link.file, link.object);
    file.close();
    return commit_file(temporary, name);
}

FileRecord RunFolder::record_of(const std::string& file) const {
    return {file, std::filesystem::file_size(path_ / file), xxh3_128_of_file(path_ / file)};
}

}  // namespace espalier
