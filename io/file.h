#pragma once
/// Files by descriptor: whole reads at an offset, and files that appear complete or not at all.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace espalier {

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
    /// fsync, rename, fsync of the folder. Throws ResourceError when any of them fails.
    void commit();

  private:
    std::filesystem::path path_, temporary_;
    int descriptor_ = -1;
};

/// AtomicFile of one text.
void write_text_atomically(const std::filesystem::path& path, std::string_view text);

/// Flushes a file or folder to the disk. Throws ResourceError.
void sync_path(const std::filesystem::path& path);

/// Renames `from` to `to` in the same folder and flushes the folder.
void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to);

/// "No space left on device" and its like, after `what`: a ResourceError for full disks and quotas too.
[[noreturn]] void throw_system_error(const std::string& what, int error_number);

}  // namespace espalier
