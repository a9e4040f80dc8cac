#include "io/checkpoint_folder.h"

#include "io/checksum.h"
#include "src/base/error.h"
#include "src/base/strict_json.h"

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
bool exists_at(const std::filesystem::path& path) {
    return std::filesystem::exists(status_of(path));
}
bool is_folder(const std::filesystem::path& path) {
    return std::filesystem::is_directory(status_of(path));
}

void refuse_other_formats(const std::filesystem::path& folder) {
    if (!is_folder(folder)) {
        throw InputError("model folder " + folder.string() +
                         " does not exist or is not a folder; one of the Hugging Face hub has to be downloaded first");
    }
    if (exists_at(folder / "adapter_config.json")) {
        throw InputError(folder.string() +
                         " holds a LoRA adapter (adapter_config.json); merge it into its base model first");
    }
    if (!exists_at(folder / "config.json")) {
        throw InputError(folder.string() + " has no config.json: not a Hugging Face model folder");
    }
    if (exists_at(folder / single_file) || exists_at(folder / index_file)) return;
    for (const auto& item : std::filesystem::directory_iterator(folder)) {
        if (item.path().filename().string().starts_with("pytorch_model")) {
            throw InputError(folder.string() + " holds pickled weights (" + item.path().filename().string() +
                             "), which can run code when loaded; convert them to safetensors first");
        }
    }
    throw InputError(folder.string() + " holds neither " + single_file + " nor " + index_file);
}

}  // namespace

CheckpointFolder::CheckpointFolder(const std::filesystem::path& folder) : folder_(folder) {
    refuse_other_formats(folder_);
    config_text_ = read_text(folder_ / "config.json", config_limit);
    sharded_ = !exists_at(folder_ / single_file);
    if (sharded_)
        check_index(read_text(folder_ / index_file, index_limit));
    else
        add_shard(single_file);
}

void CheckpointFolder::add_shard(const std::string& file_name) {
    InputFile file(folder_ / file_name);
    const std::string source = file.path().string();
    if (file.size() < 8) throw InputError(source + " has only " + std::to_string(file.size()) + " bytes");
    unsigned char prefix[8];
    file.read(0, std::as_writable_bytes(std::span(prefix)));
    if (std::memcmp(prefix, "version ", 8) == 0) {
        throw InputError(source + " is a git-lfs pointer, not the weights; run 'git lfs pull' in the model folder");
    }
    std::string text(static_cast<std::size_t>(safetensors_header_bytes(prefix, file.size(), source)), '\0');
    file.read(8, std::as_writable_bytes(std::span(text)));
    SafetensorsHeader header = parse_safetensors_header(text, file.size(), source);
    warnings_.insert(warnings_.end(), header.warnings.begin(), header.warnings.end());
    for (auto& [name, entry] : header.tensors) {
        const auto [place, added] = tensors_.try_emplace(name, StoredTensor{files_.size(), std::move(entry)});
        if (!added) {
            throw InputError("tensor '" + name + "' is both in " + files_[place->second.file].path().string() +
                             " and in " + source);
        }
    }
    header_hashes_.push_back(sha256(text));
    metadata_.push_back(std::move(header.metadata));
    files_.push_back(std::move(file));
}

void CheckpointFolder::check_index(const std::string& text) {
    const std::string source = (folder_ / index_file).string();
    const Json index = parse_strict_json(text, source);
    if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
        throw InputError(source + " has no object 'weight_map'");
    }
    std::set<std::string> shards;
    for (const auto& item : index["weight_map"].items()) {
        if (!item.value().is_string())
            throw InputError(source + ": file of tensor '" + item.key() + "' is not a string");
        const auto name = item.value().get<std::string>();
        if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos ||
            name.find('\0') != std::string::npos) {
            std::string shown = name;
            std::replace(shown.begin(), shown.end(), '\0', '?');
            throw InputError(source + ": '" + shown + "' for tensor '" + item.key() + "' is not a plain file name");
        }
        shards.insert(name);
    }
    if (shards.empty()) throw InputError(source + ": weight_map is empty");
    for (const std::string& shard : shards) {
        if (!exists_at(folder_ / shard)) {
            throw InputError(source + " names shard " + shard + ", which is not in the folder (incomplete download?)");
        }
        add_shard(shard);
    }
    for (const auto& item : index["weight_map"].items()) {
        const auto found = tensors_.find(item.key());
        if (found == tensors_.end() ||
            files_[found->second.file].path().filename() != item.value().get<std::string>()) {
            throw InputError(source + ": tensor '" + item.key() + "' is not in " + item.value().get<std::string>());
        }
    }
    for (const auto& [name, tensor] : tensors_) {
        if (!index["weight_map"].contains(name)) {
            throw InputError(source + ": tensor '" + name + "' of " + files_[tensor.file].path().filename().string() +
                             " is not in weight_map");
        }
    }
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
    return sha256(text);
}

}  // namespace espalier
