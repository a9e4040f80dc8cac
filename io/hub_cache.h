#pragma once
/// The Hugging Face hub's cache: models--organisation--name with `refs`, `snapshots` and `blobs`.

#include <filesystem>
#include <string>

namespace espalier {

/// A model folder, and how it was found when that is not what was named.
struct LocatedFolder {
    std::filesystem::path path;
    std::string note;  ///< one sentence for the log, or empty
};

/// `folder` itself, or, when it is a model's folder in the hub's cache, the snapshot that its refs/main names. Throws
/// InputError when refs/main or that snapshot is not there.
LocatedFolder locate_model_folder(const std::filesystem::path& folder);

/// The commit of a snapshot in a hub's cache ("…/snapshots/<commit>"), or empty for any other path.
std::string snapshot_commit(const std::filesystem::path& folder);

}  // namespace espalier
