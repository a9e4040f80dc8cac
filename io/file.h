#pragma once
/// Files by descriptor: whole reads at an offset, and files that appear complete or not at all.
///
/// What is asked of a file system is little, since run folders lie on NFS, Lustre, GPFS and FUSE mounts that refuse
/// what a local disk does: open, read, write, fsync of files, unlink, mkdir and rename within a folder. Hard and
/// symbolic links, locks, fallocate, truncation, modes, times, memory maps, O_DIRECT and O_TMPFILE are not used, or not
/// needed (docs/formats.md has the list).

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace espalier {

/// ENOTSUPP of the kernel, which errno.h does not name: NFS and FUSE let it through.
inline constexpr int enotsupp = 524;

/// An open file, read with pread (a file truncated under a memory map would be a SIGBUS; here it is an error). Movable.
class InputFile {
  public:
    /// Follows symbolic links. Throws InputError with the system's words when it cannot be opened or is no regular
    /// file.
    explicit InputFile(const std::filesystem::path& path);
    InputFile(InputFile&& other) noexcept;
    InputFile& operator=(InputFile&& other) noexcept;
    InputFile(const InputFile&) = delete;
    InputFile& operator=(const InputFile&) = delete;
    ~InputFile();

    const std::filesystem::path& path() const { return path_; }
    std::uint64_t size() const { return size_; }
    /// Fills `destination` from `offset`. Retries interrupted and short reads; throws InputError when the file ends
    /// before.
    void read(std::uint64_t offset, std::span<std::byte> destination) const;

  private:
    std::filesystem::path path_;
    int descriptor_ = -1;
    std::uint64_t size_ = 0;
};

/// The whole file as text; refuses files larger than `limit` bytes.
std::string read_text(const std::filesystem::path& path, std::uint64_t limit);

/// A file written under `path` + ".tmp" and renamed to `path` by commit(); without commit the temporary file is
/// removed.
class AtomicFile {
  public:
    explicit AtomicFile(const std::filesystem::path& path);
    AtomicFile(const AtomicFile&) = delete;
    AtomicFile& operator=(const AtomicFile&) = delete;
    ~AtomicFile();

    void write(std::span<const std::byte> data);
    void write(std::string_view text);
    /// sync_file, rename_durably. Throws ResourceError when any of them fails.
    void commit();

  private:
    std::filesystem::path path_, temporary_;
    int descriptor_ = -1;
};

/// AtomicFile of one text.
void write_text_atomically(const std::filesystem::path& path, std::string_view text);

/// Flushes a file to the disk. Throws ResourceError.
void sync_file(const std::filesystem::path& path);

/// Flushes a folder's names to the disk. A file system that cannot (EINVAL, ENOTSUP, ENOSYS and their kin) has nothing
/// to flush; any other failure, such as EIO, throws ResourceError.
void sync_folder(const std::filesystem::path& path);

/// Renames `from` to `to` in the same folder, replacing it in one step, and flushes the folder. Servers that refuse to
/// replace a file while somebody reads it get a few seconds. Throws ResourceError.
void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to);

/// Copies the content of a file, durably and all or nothing as AtomicFile; mode, times and attributes are not copied.
void copy_durably(const std::filesystem::path& from, const std::filesystem::path& to);

/// "No space left on device" and its like, after `what`: a ResourceError for full disks and quotas too.
[[noreturn]] void throw_system_error(const std::string& what, int error_number);

}  // namespace espalier
