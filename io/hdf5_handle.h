#pragma once
/// HDF5's C API behind owning handles, one thread at a time. Only files in io/ may include this header, which knows
/// hdf5.h.
///
/// Rules learnt from HDF5 1.10.8: after a failed write a later flush or close may report success, so any failed call
/// poisons the file; closing a poisoned file can crash the process at exit, so Hdf5Writer leaks it on purpose.

#include "src/base/dtype.h"

#include <hdf5.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <mutex>
#include <span>
#include <string>
#include <vector>

namespace espalier {

struct DatasetChunks;

/// HDF5 keeps global state: every use of this header holds this lock. Switches off HDF5's own printing of errors.
std::unique_lock<std::recursive_mutex> lock_hdf5();

/// Owns an HDF5 identifier.
class Hdf5Handle {
  public:
    using Close = herr_t (*)(hid_t);
    Hdf5Handle(hid_t id, Close close) : id_(id), close_(close) {}
    Hdf5Handle(Hdf5Handle&& other) noexcept;
    Hdf5Handle(const Hdf5Handle&) = delete;
    Hdf5Handle& operator=(const Hdf5Handle&) = delete;
    ~Hdf5Handle();
    hid_t id() const { return id_; }

  private:
    hid_t id_;
    Close close_;
};

/// The file type of a dtype; bfloat16 is a custom 16-bit float (HDF5 1.10 has none), stored bit for bit.
Hdf5Handle hdf5_type(DType dtype);

/// A two- or one-dimensional dataset as found in a file.
struct Hdf5DatasetInfo {
    std::vector<std::uint64_t> shape;
    DType dtype = DType::f32;
};

/// A file being written. Errors throw ResourceError with the file's name; afterwards it must be given up.
class Hdf5Writer {
  public:
    /// Truncates. Times are not tracked, so that equal content gives equal bytes. Checksums are computed by `threads`
    /// threads.
    explicit Hdf5Writer(const std::filesystem::path& path, int threads = 1);
    Hdf5Writer(const Hdf5Writer&) = delete;
    Hdf5Writer& operator=(const Hdf5Writer&) = delete;
    ~Hdf5Writer();

    /// Creates the dataset with its missing parent groups, whole-row chunks of about 4 MiB and fletcher32, and writes
    /// it.
    void write(const std::string& name, DType dtype, const std::vector<std::uint64_t>& shape,
               std::span<const std::byte> data);
    /// The same, filled in pieces of whole rows by write_rows.
    void create(const std::string& name, DType dtype, const std::vector<std::uint64_t>& shape);
    void write_rows(const std::string& name, std::uint64_t first_row, std::uint64_t rows,
                    std::span<const std::byte> data);
    /// A dataset of token ids, [rows, columns], int32.
    void write_token_ids(const std::string& name, std::uint64_t rows, std::uint64_t columns,
                         std::span<const std::int32_t> ids);
    /// String or integer attribute of an object ("/" for the file).
    void attribute(const std::string& object, const std::string& name, const std::string& value);
    void attribute(const std::string& object, const std::string& name, std::int64_t value);
    /// A link `name` to object `target` of another file, relative to this file's folder.
    void external_link(const std::string& name, const std::string& file, const std::string& target);
    /// Flushes and closes, checked.
    void close();

  private:
    void check(bool ok, const std::string& what);
    void create_as(const std::string& name, hid_t type, DType chunks, const std::vector<std::uint64_t>& shape);
    std::filesystem::path path_;
    int threads_;
    hid_t file_ = -1;
    bool poisoned_ = false;
};

/// A file being read. Errors throw InputError with the file's name and the object.
class Hdf5Reader {
  public:
    explicit Hdf5Reader(const std::filesystem::path& path);
    Hdf5Reader(Hdf5Reader&&) noexcept;
    Hdf5Reader(const Hdf5Reader&) = delete;
    Hdf5Reader& operator=(const Hdf5Reader&) = delete;
    ~Hdf5Reader();

    bool contains(const std::string& name) const;
    /// Shape and type of a dataset of weights or masks.
    Hdf5DatasetInfo info(const std::string& name) const;
    /// Reads rows [first_row, first_row + rows) of a weight or mask dataset, in its own type.
    void read_rows(const std::string& name, std::uint64_t first_row, std::uint64_t rows,
                   std::span<std::byte> destination) const;
    /// A whole weight or mask dataset, in its own type; its size must be `destination.size()` bytes.
    void read(const std::string& name, std::span<std::byte> destination) const;
    /// Whether a dataset that Hdf5Writer::write has written holds exactly `data`, checksums included. Compares with
    /// `threads` threads.
    bool holds(const std::string& name, std::span<const std::byte> data, int threads = 1) const;
    std::string attribute(const std::string& object, const std::string& name) const;

    /// A two-dimensional integer dataset of any width: its shape, then its values.
    std::vector<std::uint64_t> integer_shape(const std::string& name) const;
    void read_integers(const std::string& name, std::span<std::int64_t> destination) const;

  private:
    [[noreturn]] void fail(const std::string& what) const;
    Hdf5Handle open_dataset(const std::string& name) const;
    /// Where the chunks begin in the file; empty when they are not stored as they should be.
    std::vector<std::uint64_t> chunk_addresses(const std::string& name, const DatasetChunks& chunks,
                                               std::uint64_t chunk_rows) const;
    std::filesystem::path path_;
    hid_t file_ = -1;
};

}  // namespace espalier
