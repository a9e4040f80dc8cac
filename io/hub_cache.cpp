#include "io/hub_cache.h"

#include "io/file.h"
#include "src/base/error.h"

#include <algorithm>
#include <cctype>
#include <set>

namespace espalier {

namespace {

bool is_directory_at(const std::filesystem::path& path) {
    std::error_code error;
    return std::filesystem::is_directory(path, error);
}

bool is_cache_folder(const std::filesystem::path& folder) {
    std::error_code error;
    if (std::filesystem::exists(folder / "config.json", error)) return false;
    return is_directory_at(folder / "snapshots") || is_directory_at(folder / "refs") ||
           is_directory_at(folder / "blobs");
}

/// ": name one of its snapshots, such as …", or nothing when there is none.
std::string snapshots_to_name(const std::filesystem::path& snapshots) {
    std::set<std::string> names;
    std::error_code error;
    for (const auto& item : std::filesystem::directory_iterator(snapshots, error)) names.insert(item.path().string());
    return names.empty() ? "; download the model again" : "; name a snapshot that is there: " + *names.begin();
}

}  // namespace

LocatedFolder locate_model_folder(const std::filesystem::path& folder) {
    if (!is_cache_folder(folder)) return {folder, {}};
    const std::string source = folder.string() + " is a model's folder in the Hugging Face cache, ";
    const std::filesystem::path snapshots = folder / "snapshots", reference = folder / "refs" / "main";
    std::error_code error;
    if (!std::filesystem::exists(reference, error)) {
        throw InputError(source + "but it has no refs/main" + snapshots_to_name(snapshots));
    }
    std::string commit = read_text(reference, 4096);
    commit.erase(std::find_if(commit.begin(), commit.end(), [](char c) { return c == '\n' || c == '\r' || c == ' '; }),
                 commit.end());
    const bool plain = !commit.empty() && std::all_of(commit.begin(), commit.end(), [](unsigned char c) {
        return std::isalnum(c) != 0 || c == '-' || c == '_';
    });
    if (!plain) throw InputError(reference.string() + " does not hold the name of a snapshot");
    if (!is_directory_at(snapshots / commit)) {
        throw InputError(source + "but the snapshot " + commit + " that its refs/main names is not there" +
                         snapshots_to_name(snapshots));
    }
    return {snapshots / commit, source + "of which the snapshot " + commit + " (refs/main) is used"};
}

std::string snapshot_commit(const std::filesystem::path& folder) {
    const bool snapshot =
        folder.parent_path().filename() == "snapshots" && is_directory_at(folder.parent_path().parent_path() / "refs");
    return snapshot ? folder.filename().string() : std::string();
}

}  // namespace espalier
