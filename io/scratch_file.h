#pragma once
/// A file that is memory: bytes at offsets, for as long as the program runs. Its name is gone as soon as it is open, so
/// that nothing is left of it whatever ends the program (of a machine that dies NFS keeps a .nfs… file).

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace espalier {

class ScratchFile {
  public:
    /// Creates `path`, or takes what a program that was killed at this very moment left there. Throws ResourceError.
    explicit ScratchFile(std::filesystem::path path);
    ScratchFile(const ScratchFile&) = delete;
    ScratchFile& operator=(const ScratchFile&) = delete;
    ~ScratchFile();

    /// So many bytes are there, zero, and the disk has room for them. Throws ResourceError.
    void reserve(std::uint64_t bytes);
    /// Pieces are read and written beside each other by as many threads as OpenMP gives. Throws ResourceError, for a
    /// full disk too, and for bytes that were never written.
    void read(std::uint64_t offset, std::span<std::byte> destination) const;
    void write(std::uint64_t offset, std::span<const std::byte> source);

  private:
    std::filesystem::path path_;
    int descriptor_ = -1;
};

}  // namespace espalier
