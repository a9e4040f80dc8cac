#include "io/checkpoint_folder.h"

#include "io/checksum.h"
#include "src/base/error.h"
#include "src/base/json.h"

#include <algorithm>
#include <cstring>
#include <set>

namespace espalier {

namespace {

constexpr std::uint64_t config_limit = 16u << 20;
constexpr std::uint64_t index_limit = 256u << 20;
const char* const single_file = "model.safetensors";
const char* const index_file = "model.safetensors.index.json";

/// What lies at a path; throws InputError when it cannot even be looked at (a loop of links, a name too long).
std::filesystem::file_status status_of(const std::filesystem::path& path) {
    std::error_code error;
    const std::filesystem::file_status status = std::filesystem::status(path, error);
    if (status.type() == std::filesystem::file_type::none) {
        throw InputError(path.string().substr(0, 300) + " cannot be opened: " + error.message());
    }
    return status;
}
/// Throws InputError for a link to nothing, as an unfinished download into the hub's cache leaves it.
bool exists_at(const std::filesystem::path& path) {
    if (std::filesystem::exists(status_of(path))) return true;
    std::error_code error;
    const std::filesystem::path target = std::filesystem::read_symlink(path, error);
    if (error) return false;
    throw InputError(path.string() + " is a link to " + target.string() +
                     ", which is not there (an unfinished download?); download the model again");
}
bool is_folder(const std::filesystem::path& path) {
    return std::filesystem::is_directory(status_of(path));
}

[[noreturn]] void refuse_without_config(const std::filesystem::path& folder) {
    for (const auto& item : std::filesystem::directory_iterator(folder)) {
        if (!item.path().filename().string().starts_with("models--")) continue;
        throw InputError(folder.string() +
                         " has no config.json; it holds models of the Hugging Face cache: name one, " + "such as " +
                         item.path().string());
    }
    throw InputError(folder.string() + " has no config.json: not a Hugging Face model folder");
}

[[noreturn]] void refuse_without_safetensors(const std::filesystem::path& folder) {
    std::set<std::string> names;
    for (const auto& item : std::filesystem::directory_iterator(folder)) {
        const std::string name = item.path().filename().string();
        if (name.starts_with("pytorch_model")) names.insert(name);
    }
    if (names.empty()) throw InputError(folder.string() + " holds neither " + single_file + " nor " + index_file);
    const std::filesystem::path plain = folder.has_filename() ? folder : folder.parent_path();
    throw InputError(folder.string() + " holds pickled weights (" + *names.begin() +
                     "), which can run code when loaded; 'jobs/import_pytorch.py " + plain.string() + " " +
                     plain.string() + "-safetensors' makes safetensors of them without running any");
}

void refuse_pointer(std::string_view content, const std::string& source) {
    if (!content.starts_with("version ")) return;
    throw InputError(source + " is a git-lfs pointer, not the file itself; run 'git lfs pull' in the model folder");
}

std::string read_json_text(const std::filesystem::path& path, std::uint64_t limit) {
    std::string text = read_text(path, limit);
    refuse_pointer(text, path.string());
    return text;
}

/// Reads weight_map and refuses names that are not plain file names.
std::map<std::string, std::string> parse_weight_map(const std::string& text, const std::string& source) {
    const Json index = parse_strict_json(text, source);
    if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
        throw InputError(source + " has no object 'weight_map'");
    }
    std::map<std::string, std::string> weight_map;
    for (const auto& [tensor, file] : index["weight_map"].items()) {
        if (!file.is_string()) throw InputError(source + ": file of tensor '" + tensor + "' is not a string");
        const auto name = file.get<std::string>();
        if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos ||
            name.find('\0') != std::string::npos) {
            std::string shown = name;
            std::replace(shown.begin(), shown.end(), '\0', '?');
            throw InputError(source + ": '" + shown + "' for tensor '" + tensor + "' is not a plain file name");
        }
        weight_map.emplace(tensor, name);
    }
    if (weight_map.empty()) throw InputError(source + ": weight_map is empty");
    return weight_map;
}

}  // namespace

std::vector<WeightFiles> CheckpointFolder::weight_files(const std::filesystem::path& folder) {
    if (!is_folder(folder)) {
        throw InputError("model folder " + folder.string() +
                         " does not exist or is not a folder; one of the Hugging Face hub has to be downloaded first");
    }
    if (exists_at(folder / "adapter_config.json")) {
        throw InputError(folder.string() +
                         " holds a LoRA adapter (adapter_config.json); merge it into its base model first");
    }
    if (!exists_at(folder / "config.json")) refuse_without_config(folder);
    std::vector<WeightFiles> files;
    if (exists_at(folder / single_file)) files.push_back(WeightFiles::single);
    if (exists_at(folder / index_file)) files.push_back(WeightFiles::sharded);
    if (files.empty()) refuse_without_safetensors(folder);
    return files;
}

CheckpointFolder::CheckpointFolder(const std::filesystem::path& folder)
    : CheckpointFolder(folder, weight_files(folder).front()) {}

CheckpointFolder::CheckpointFolder(const std::filesystem::path& folder, WeightFiles files)
    : folder_(folder), sharded_(files == WeightFiles::sharded) {
    config_text_ = read_json_text(folder_ / "config.json", config_limit);
    if (sharded_) {
        const std::filesystem::path index = folder_ / index_file;
        add_indexed_shards(parse_weight_map(read_json_text(index, index_limit), index.string()));
    } else {
        add_shard(single_file, nullptr);
    }
}

void CheckpointFolder::add_shard(const std::string& file_name, const WeightMap* weight_map) {
    InputFile file(folder_ / file_name);
    const std::string source = file.path().string();
    if (file.size() < 8) throw InputError(source + " has only " + std::to_string(file.size()) + " bytes");
    unsigned char prefix[8];
    file.read(0, std::as_writable_bytes(std::span(prefix)));
    refuse_pointer({reinterpret_cast<const char*>(prefix), sizeof prefix}, source);
    std::string text(static_cast<std::size_t>(safetensors_header_bytes(prefix, file.size(), source)), '\0');
    file.read(8, std::as_writable_bytes(std::span(text)));
    SafetensorsHeader header = parse_safetensors_header(text, file.size(), source);
    warnings_.insert(warnings_.end(), header.warnings.begin(), header.warnings.end());
    for (auto& [name, entry] : header.tensors) {
        if (weight_map != nullptr) {
            const auto mapped = weight_map->find(name);
            if (mapped == weight_map->end()) unmapped_.emplace(name, files_.size());
            if (mapped == weight_map->end() || mapped->second != file_name) {
                if (++ignored_ == 1) ignored_example_ = "'" + name + "' in " + file_name;
                continue;
            }
        }
        tensors_.emplace(name, StoredTensor{files_.size(), std::move(entry)});
    }
    header_hashes_.push_back(sha256(text));
    metadata_.push_back(std::move(header.metadata));
    files_.push_back(std::move(file));
}

void CheckpointFolder::add_indexed_shards(const WeightMap& weight_map) {
    const std::string source = (folder_ / index_file).string();
    std::set<std::string> shards;
    for (const auto& [name, shard] : weight_map) shards.insert(shard);
    for (const std::string& shard : shards) {
        if (!exists_at(folder_ / shard)) {
            throw InputError(source + " names shard " + shard + ", which is not in the folder (incomplete download?)");
        }
        add_shard(shard, &weight_map);
    }
    for (const auto& [name, shard] : weight_map) {
        if (!tensors_.contains(name)) throw InputError(source + ": tensor '" + name + "' is not in " + shard);
    }
    if (ignored_ > 0) {
        warnings_.push_back(std::to_string(ignored_) + " stored tensor(s) are ignored, since " + index_file +
                            " does not map them to where they lie; the first is " + ignored_example_);
    }
}

std::optional<std::filesystem::path> CheckpointFolder::unmapped(const std::string& name) const {
    const auto found = unmapped_.find(name);
    if (found == unmapped_.end()) return {};
    return files_[found->second].path();
}

const StoredTensor& CheckpointFolder::tensor(const std::string& name) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) throw InputError("tensor '" + name + "' is missing in " + folder_.string());
    return found->second;
}

std::vector<std::string> CheckpointFolder::shard_names() const {
    std::vector<std::string> names;
    for (const InputFile& file : files_) names.push_back(file.path().filename().string());
    return names;
}

DType CheckpointFolder::dtype_of(const std::string& name) const {
    const std::string& dtype = tensor(name).entry.dtype;
    if (dtype == "F32") return DType::f32;
    if (dtype == "F16") return DType::f16;
    if (dtype == "BF16") return DType::bf16;
    throw InputError("tensor '" + name + "' in " + file_of(tensor(name)).string() + " has dtype " + dtype +
                     "; F32, F16 or BF16 is needed (a quantised model must be dequantised first)");
}

void CheckpointFolder::read(const std::string& name, std::uint64_t offset, std::span<std::byte> destination) const {
    const StoredTensor& stored = tensor(name);
    require(offset + destination.size() <= stored.entry.bytes, "a read inside the tensor");
    files_[stored.file].read(stored.entry.begin + offset, destination);
}

std::string CheckpointFolder::identity() const {
    std::string text = sha256(config_text_);
    for (const std::string& hash : header_hashes_) text += hash;
    if (ignored_ > 0) {
        for (const auto& [name, stored] : tensors_) text += '\0' + name + '\0' + std::to_string(stored.file);
    }
    return sha256(text);
}

}  // namespace espalier
