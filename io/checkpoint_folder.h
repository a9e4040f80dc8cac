#pragma once
/// A Hugging Face model folder: config.json and the tensors of one or several safetensors files.

#include "io/file.h"
#include "io/safetensors.h"
#include "src/base/dtype.h"

#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace espalier {

/// One tensor of the folder.
struct StoredTensor {
    std::size_t file = 0;  ///< index into files()
    SafetensorsEntry entry;
};

/// Which files hold the tensors: model.safetensors, or the shards that model.safetensors.index.json names.
enum class WeightFiles { single, sharded };

class CheckpointFolder {
  public:
    /// What the folder holds, the single file first when it holds both. Throws InputError for a folder that is no
    /// complete model folder: pickled weights, a LoRA adapter, links to files that are not there …
    static std::vector<WeightFiles> weight_files(const std::filesystem::path& folder);

    /// Reads config.json, the index and every shard's header and checks them against each other. Which tensor lies in
    /// which shard is the index's word: what it does not map there is ignored, with one warning. Throws InputError that
    /// names the file: missing shards, git-lfs pointers, path traversal, tensors that are not where the index says …
    CheckpointFolder(const std::filesystem::path& folder, WeightFiles files);
    /// The first of weight_files().
    explicit CheckpointFolder(const std::filesystem::path& folder);

    const std::filesystem::path& folder() const { return folder_; }
    const std::string& config_text() const { return config_text_; }
    const std::map<std::string, StoredTensor>& tensors() const { return tensors_; }
    bool contains(const std::string& name) const { return tensors_.contains(name); }
    const StoredTensor& tensor(const std::string& name) const;  ///< throws InputError naming the folder
    const std::filesystem::path& file_of(const StoredTensor& tensor) const { return files_[tensor.file].path(); }
    /// The shard that holds a tensor which the index does not map, if one does.
    std::optional<std::filesystem::path> unmapped(const std::string& name) const;
    /// Names of the shard files in order, and whether an index names them.
    std::vector<std::string> shard_names() const;
    bool sharded() const { return sharded_; }
    const std::map<std::string, std::string>& metadata_of_shard(std::size_t shard) const { return metadata_[shard]; }
    const std::vector<std::string>& warnings() const { return warnings_; }

    /// The element type, when it is one that we compute on; otherwise throws InputError naming the tensor and its type.
    DType dtype_of(const std::string& name) const;
    /// Reads `destination.size()` bytes of the tensor from byte `offset` of its data. Thread-safe.
    void read(const std::string& name, std::uint64_t offset, std::span<std::byte> destination) const;

    /// SHA-256 over config.json, the headers of all shards and, where shards hold more than the index maps, the index's
    /// choice: the identity of the model without reading its weights.
    std::string identity() const;

  private:
    using WeightMap = std::map<std::string, std::string>;  ///< tensor -> shard
    void add_shard(const std::string& file_name, const WeightMap* weight_map);
    void add_indexed_shards(const WeightMap& weight_map);

    std::filesystem::path folder_;
    std::string config_text_;
    bool sharded_ = false;
    std::vector<InputFile> files_;
    std::vector<std::string> header_hashes_;
    std::vector<std::map<std::string, std::string>> metadata_;
    std::map<std::string, StoredTensor> tensors_;
    std::map<std::string, std::size_t> unmapped_;  ///< tensors that the index leaves out -> file
    std::size_t ignored_ = 0;                      ///< stored tensors that are not the ones the index maps
    std::string ignored_example_;                  ///< "'name' in file"
    std::vector<std::string> warnings_;
};

}  // namespace espalier
