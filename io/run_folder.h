#pragma once
/// The folder that a run writes. It is the checkpoint: there is no other state.
///
///   config.json    the model's, as read        manifest.json  what is committed; replaced after every block
///   blocks/00042.h5  one file per block         metrics.json   the same numbers, for people and plots
///   non_block.h5   embedding, norm, head        events.jsonl   one JSON object a line, as it happens
///   model.h5       links all of them            lock           who is writing
///
/// A run of fine-tuning holds in blocks/ what it has trained of each block (and, behind the last, of the model's end),
/// adapters.h5 instead of model.h5, and, while it goes on, checkpoint/: what its last checkpoint consists of.
///
/// A block file: temporary name, checked close, fsync, reopen and audit, rename, fsync of the folder; then the
/// manifest.

#include "src/base/dtype.h"
#include "src/base/json.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace espalier {

/// One tensor of a block or outer file: `name` as in the checkpoint ("model.layers.3.mlp.up_proj.weight"), dots become
/// groups.
struct FileTensor {
    std::string name;
    DType dtype = DType::f32;
    std::vector<std::uint64_t> shape;
    std::span<const std::byte> data;
};

/// "/model/layers/3/mlp/up_proj/weight".
std::string hdf5_path(const std::string& tensor_name);

/// A file that the manifest vouches for.
struct FileRecord {
    std::string file;  ///< relative to the run folder
    std::uint64_t bytes = 0;
    std::string xxh3;
};

class RunFolder {
  public:
    explicit RunFolder(std::filesystem::path path) : path_(std::move(path)) {}

    const std::filesystem::path& path() const { return path_; }
    std::filesystem::path block_path(std::size_t block) const { return path_ / block_file(block); }
    static std::string block_file(std::size_t block);
    static constexpr const char* outer_file = "non_block.h5";
    static constexpr const char* linked_file = "model.h5";
    static constexpr const char* adapters_file = "adapters.h5";
    static constexpr const char* calibration_file = "calibration.h5";  ///< of tokens that the run has drawn
    /// A run folder inside that of a run of `finetune`: what it pruned first, when one command did both.
    static constexpr const char* pruned_folder = "pruned";
    /// What a manifest's field "format" says: of a run of `prune`, and of `finetune`.
    static constexpr const char* manifest_format = "espalier-run";
    static constexpr const char* finetune_format = "espalier-finetune";
    /// Of a block, or the end of the model, after so many steps.
    static std::string checkpoint_file(std::size_t step, std::size_t unit);
    /// A rank's ScratchFile, of which only a kill in the moment it is made leaves anything.
    static std::string state_file(int rank);

    bool has_manifest() const;
    /// manifest.json, whatever it says (src/weights/manifest.h knows). Throws InputError when there is none, or when it
    /// is not JSON.
    Json read_manifest() const;
    /// Replaces manifest.json atomically; the new one holds the hash of the one before.
    void write_manifest(Json manifest) const;

    /// Creates the folder, or checks that it is empty, holds a run, or what a run of the model with this config.json
    /// leaves when it is killed before its first manifest. Throws InputError when it holds anything else, or cannot be
    /// written.
    void prepare(const std::string& config_text) const;
    /// The folder in it that holds what was pruned before.
    RunFolder pruned() const { return RunFolder(path_ / pruned_folder); }
    /// Removes every file that a run writes, and nothing else; the manifest last, so that what an interrupted removal
    /// leaves is known as ours.
    void clear() const;

    /// Writes, audits and commits one block file. `audit` gets the path of the closed temporary file and throws when it
    /// is not as it should be. Thread-safe for different blocks.
    /// `threads` of the host help.
    FileRecord commit_block(std::size_t block, const std::vector<FileTensor>& tensors,
                            const std::map<std::string, std::string>& attributes,
                            const std::function<void(const std::filesystem::path&)>& audit, int threads = 1) const;
    /// The same for a file of any name, and of any tensors. The folder that it lies in is made if need be.
    FileRecord commit_tensors(const std::string& file, const std::vector<FileTensor>& tensors,
                              const std::map<std::string, std::string>& attributes,
                              const std::function<void(const std::filesystem::path&)>& audit, int threads = 1) const;
    /// Removes the files of all checkpoints but those after `step` steps; of all when it is absent.
    void remove_checkpoints(std::optional<std::size_t> but_of_step) const;
    /// Flushes a closed temporary file and renames it to `file`.
    FileRecord commit_file(const std::filesystem::path& temporary, const std::string& file) const;
    /// model.h5: one logical file over all others. `blocks`: what the names of each block's tensors begin with.
    FileRecord write_linked_file(const std::vector<std::string>& blocks,
                                 const std::vector<std::string>& outer_tensors) const;
    /// A file of that name with a link to each object in a file of this folder.
    struct Link {
        std::string object, file;  ///< "/model/layers/3", "blocks/00003.h5"
    };
    FileRecord write_links(const std::string& name, const std::vector<Link>& links) const;
    /// Size and checksum of a file as it is now.
    FileRecord record_of(const std::string& file) const;

  private:
    /// Throws InputError when the folder holds what no run of the model with this config.json has written.
    void refuse_other_content(const std::string& config_text) const;

    std::filesystem::path path_;
};

/// Held while a run writes its folder: the file `lock`, which names the holder, under flock.
///
/// Where the file system has no locks (ENOLCK, ENOSYS, EOPNOTSUPP, EINVAL, 524), the file alone protects the folder: it
/// is created exclusively, and who finds one of another run is refused, unless that run is known to have ended: its
/// process is gone from this machine (by number, start and boot), or it belongs to an earlier start of this Slurm job.
/// Of a run on another machine nothing can be known: the sentence says which file to remove when it has ended. Who
/// takes over a stale lock looks at its own again half a second later, so that of several at one moment only the last
/// stays.
class RunLock {
  public:
    /// Throws InputError naming host, process and job of the holder when another run is writing.
    RunLock(const RunFolder& folder, const std::string& run_id);
    RunLock(const RunLock&) = delete;
    RunLock& operator=(const RunLock&) = delete;
    ~RunLock();
    /// A sentence when a stale lock was taken over; empty otherwise.
    const std::string& takeover() const { return takeover_; }
    /// A sentence when this file system has no locks; empty otherwise.
    const std::string& warning() const { return warning_; }

  private:
    /// `error`: of flock, 0 when it has locked.
    void hold_by_flock(int error);
    void hold_by_file(bool created, int error);
    bool is_ours() const;

    std::filesystem::path folder_, path_;
    int descriptor_ = -1;  ///< under flock; -1: the file alone
    std::string content_, takeover_, warning_;
};

}  // namespace espalier
