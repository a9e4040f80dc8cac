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

class CheckpointFolder {
  public:
    /// Reads config.json, the index and every shard's header and checks them against each other. Throws InputError that
    /// names the file: missing shards, git-lfs pointers, pickled or LoRA folders, path traversal, tensors in two shards
    /// …
    explicit CheckpointFolder(const std::filesystem::path& folder);

    const std::filesystem::path& folder() const { return folder_; }
    const std::string& config_text() const { return config_text_; }
    const std::map<std::string, StoredTensor>& tensors() const { return tensors_; }
    bool contains(const std::string& name) const { return tensors_.contains(name); }
    const StoredTensor& tensor(const std::string& name) const;  ///< throws InputError naming the folder
    const std::filesystem::path& file_of(const StoredTensor& tensor) const { return files_[tensor.file].path(); }
    /// Names of the shard files in order, and whether there is an index.
    std::vector<std::string> shard_names() const;
    bool sharded() const { return sharded_; }
    const std::map<std::string, std::string>& metadata_of_shard(std::size_t shard) const { return metadata_[shard]; }
    const std::vector<std::string>& warnings() const { return warnings_; }

    /// The element type, when it is one that we compute on; otherwise throws InputError naming the tensor and its type.
    DType dtype_of(const std::string& name) const;
    /// Reads `destination.size()` bytes of the tensor from byte `offset` of its data. Thread-safe.
    void read(const std::string& name, std::uint64_t offset, std::span<std::byte> destination) const;

    /// SHA-256 over config.json and the headers of all shards: the identity of the model without reading its weights.
    std::string identity() const;

  private:
    void add_shard(const std::string& file_name);
    void check_index(const std::string& text);

    std::filesystem::path folder_;
    std::string config_text_;
    bool sharded_ = false;
    std::vector<InputFile> files_;
    std::vector<std::string> header_hashes_;
    std::vector<std::map<std::string, std::string>> metadata_;
    std::map<std::string, StoredTensor> tensors_;
    std::vector<std::string> warnings_;
};

}  // namespace espalier
