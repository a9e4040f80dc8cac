#include "io/hdf5_handle.h"

#include "io/dataset_chunks.h"
#include "io/file.h"
#include "io/hdf5_open.h"
#include "src/base/error.h"

#include <omp.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

namespace espalier {

std::unique_lock<std::recursive_mutex> lock_hdf5() {
    static std::recursive_mutex mutex;
    std::unique_lock lock(mutex);
    static const bool without_locks = [] {
        switch_off_hdf5_locks();
        return true;
    }();
    static_cast<void>(without_locks);
    thread_local const bool quiet = [] {
        H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
        return true;
    }();
    static_cast<void>(quiet);
    return lock;
}

Hdf5Handle::Hdf5Handle(Hdf5Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}

Hdf5Handle::~Hdf5Handle() {
    if (id_ >= 0) close_(id_);
}

Hdf5Handle hdf5_type(DType dtype) {
    if (dtype == DType::u8) return {H5Tcopy(H5T_STD_U8LE), H5Tclose};
    Hdf5Handle type(H5Tcopy(H5T_IEEE_F32LE), H5Tclose);
    herr_t status = 0;
    if (dtype == DType::bf16) {
        status = std::min(
            {H5Tset_fields(type.id(), 15, 7, 8, 0, 7), H5Tset_size(type.id(), 2), H5Tset_ebias(type.id(), 127)});
    } else if (dtype == DType::f16) {
        status = std::min(
            {H5Tset_fields(type.id(), 15, 10, 5, 0, 10), H5Tset_size(type.id(), 2), H5Tset_ebias(type.id(), 15)});
    }
    require(type.id() >= 0 && status >= 0, "HDF5 accepts our element types");
    return type;
}

namespace {

std::size_t row_bytes_of(DType dtype, const std::vector<std::uint64_t>& shape) {
    std::size_t bytes = bytes_of(dtype);
    for (std::size_t d = 1; d < shape.size(); ++d) bytes *= static_cast<std::size_t>(shape[d]);
    return bytes;
}

/// Rows of a chunk: about 4 MiB, the dataset itself when it is smaller.
std::uint64_t chunk_rows_of(DType dtype, const std::vector<std::uint64_t>& shape) {
    constexpr std::size_t chunk_bytes = std::size_t{4} << 20;
    return std::min<std::uint64_t>(shape[0], std::max<std::size_t>(1, chunk_bytes / row_bytes_of(dtype, shape)));
}

Hdf5Handle chunked_properties(DType dtype, const std::vector<std::uint64_t>& shape) {
    Hdf5Handle properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
    H5Pset_obj_track_times(properties.id(), false);
    const bool empty = std::find(shape.begin(), shape.end(), 0U) != shape.end();
    if (shape.empty() || empty) return properties;
    std::vector<hsize_t> chunk(shape.begin(), shape.end());
    chunk[0] = chunk_rows_of(dtype, shape);
    H5Pset_chunk(properties.id(), static_cast<int>(chunk.size()), chunk.data());
    H5Pset_fletcher32(properties.id());
    return properties;
}

Hdf5Handle make_space(const std::vector<std::uint64_t>& shape) {
    const std::vector<hsize_t> dimensions(shape.begin(), shape.end());
    return {shape.empty() ? H5Screate(H5S_SCALAR)
                          : H5Screate_simple(static_cast<int>(dimensions.size()), dimensions.data(), nullptr),
            H5Sclose};
}

/// Selects rows [first, first + rows) in `space` and returns the matching memory space.
Hdf5Handle select_rows(hid_t space, std::vector<hsize_t> shape, std::uint64_t first, std::uint64_t rows) {
    require(!shape.empty(), "rows of a dataset with dimensions");
    std::vector<hsize_t> start(shape.size(), 0);
    start[0] = first;
    shape[0] = rows;
    H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, shape.data(), nullptr);
    return {H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr), H5Sclose};
}

std::vector<hsize_t> dimensions_of(hid_t space) {
    std::vector<hsize_t> shape(static_cast<std::size_t>(std::max(0, H5Sget_simple_extent_ndims(space))));
    if (!shape.empty()) H5Sget_simple_extent_dims(space, shape.data(), nullptr);
    return shape;
}

/// Memory for the chunks that `threads` threads work on at a time; not cleared.
struct ChunkBuffer {
    std::size_t chunks;
    std::size_t bytes_each;
    std::unique_ptr<std::byte[]> memory;

    ChunkBuffer(const DatasetChunks& of, int threads)
        : chunks(std::min(of.count(), static_cast<std::size_t>(threads))),
          bytes_each(of.stored_bytes()),
          memory(std::make_unique_for_overwrite<std::byte[]>(chunks * bytes_each)) {}
    std::span<std::byte> place(std::size_t i) const { return {memory.get() + i * bytes_each, bytes_each}; }
};

std::vector<hsize_t> place_of_chunk(std::size_t index, std::uint64_t chunk_rows, std::size_t dimensions) {
    std::vector<hsize_t> place(dimensions, 0);
    place[0] = index * chunk_rows;
    return place;
}

}  // namespace

Hdf5Writer::Hdf5Writer(const std::filesystem::path& path, int threads) : path_(path), threads_(threads) {
    const auto lock = lock_hdf5();
    file_ = create_hdf5(path);
}

Hdf5Writer::~Hdf5Writer() {
    const auto lock = lock_hdf5();
    if (file_ >= 0 && !poisoned_) H5Fclose(file_);
}

void Hdf5Writer::check(bool ok, const std::string& what) {
    if (ok) return;
    poisoned_ = true;
    throw ResourceError(path_.string() + " " + what + hdf5_reason());
}

void Hdf5Writer::create(const std::string& name, DType dtype, const std::vector<std::uint64_t>& shape) {
    const auto lock = lock_hdf5();
    const Hdf5Handle space = make_space(shape), type = hdf5_type(dtype), properties = chunked_properties(dtype, shape);
    const Hdf5Handle links(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
    H5Pset_create_intermediate_group(links.id(), 1);
    const Hdf5Handle dataset(
        H5Dcreate2(file_, name.c_str(), type.id(), space.id(), links.id(), properties.id(), H5P_DEFAULT), H5Dclose);
    check(dataset.id() >= 0, "does not take dataset " + name);
}

void Hdf5Writer::write(const std::string& name, DType dtype, const std::vector<std::uint64_t>& shape,
                       std::span<const std::byte> data) {
    create(name, dtype, shape);
    if (data.empty()) return;
    require(!shape.empty(), "a dataset with dimensions");
    const std::uint64_t chunk_rows = chunk_rows_of(dtype, shape);
    const DatasetChunks chunks{data, static_cast<std::size_t>(chunk_rows) * row_bytes_of(dtype, shape)};
    const ChunkBuffer stored(chunks, threads_);
    for (std::size_t first = 0; first < chunks.count(); first += stored.chunks) {
        const std::size_t count = std::min(stored.chunks, chunks.count() - first);
#pragma omp parallel for num_threads(threads_) schedule(static)
        for (std::size_t i = 0; i < count; ++i) chunks.assemble(first + i, stored.place(i));
        const auto lock = lock_hdf5();
        const Hdf5Handle dataset(H5Dopen2(file_, name.c_str(), H5P_DEFAULT), H5Dclose);
        for (std::size_t i = 0; i < count; ++i) {
            const std::vector<hsize_t> offset = place_of_chunk(first + i, chunk_rows, shape.size());
            check(H5Dwrite_chunk(dataset.id(), H5P_DEFAULT, 0, offset.data(), stored.bytes_each,
                                 stored.place(i).data()) >= 0,
                  "cannot be written at dataset " + name);
        }
    }
}

void Hdf5Writer::write_rows(const std::string& name, std::uint64_t first_row, std::uint64_t rows,
                            std::span<const std::byte> data) {
    const auto lock = lock_hdf5();
    const Hdf5Handle dataset(H5Dopen2(file_, name.c_str(), H5P_DEFAULT), H5Dclose);
    check(dataset.id() >= 0, "does not open dataset " + name);
    const Hdf5Handle space(H5Dget_space(dataset.id()), H5Sclose), type(H5Dget_type(dataset.id()), H5Tclose);
    const Hdf5Handle memory = select_rows(space.id(), dimensions_of(space.id()), first_row, rows);
    check(H5Dwrite(dataset.id(), type.id(), memory.id(), space.id(), H5P_DEFAULT, data.data()) >= 0,
          "cannot be written at dataset " + name);
}

void Hdf5Writer::attribute(const std::string& object, const std::string& name, const std::string& value) {
    const auto lock = lock_hdf5();
    const Hdf5Handle type(H5Tcopy(H5T_C_S1), H5Tclose), space(H5Screate(H5S_SCALAR), H5Sclose);
    H5Tset_size(type.id(), std::max<std::size_t>(1, value.size()));
    H5Tset_cset(type.id(), H5T_CSET_UTF8);
    const Hdf5Handle attribute(H5Acreate_by_name(file_, object.c_str(), name.c_str(), type.id(), space.id(),
                                                 H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                               H5Aclose);
    check(attribute.id() >= 0 && H5Awrite(attribute.id(), type.id(), value.empty() ? "\0" : value.data()) >= 0,
          "does not take attribute " + name);
}

void Hdf5Writer::attribute(const std::string& object, const std::string& name, std::int64_t value) {
    const auto lock = lock_hdf5();
    const Hdf5Handle space(H5Screate(H5S_SCALAR), H5Sclose);
    const Hdf5Handle attribute(H5Acreate_by_name(file_, object.c_str(), name.c_str(), H5T_STD_I64LE, space.id(),
                                                 H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                               H5Aclose);
    check(attribute.id() >= 0 && H5Awrite(attribute.id(), H5T_NATIVE_INT64, &value) >= 0,
          "does not take attribute " + name);
}

void Hdf5Writer::external_link(const std::string& name, const std::string& file, const std::string& target) {
    const auto lock = lock_hdf5();
    const Hdf5Handle links(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
    H5Pset_create_intermediate_group(links.id(), 1);
    check(H5Lcreate_external(file.c_str(), target.c_str(), file_, name.c_str(), links.id(), H5P_DEFAULT) >= 0,
          "does not take link " + name);
}

void Hdf5Writer::close() {
    const auto lock = lock_hdf5();
    check(H5Fflush(file_, H5F_SCOPE_GLOBAL) >= 0, "cannot be flushed");
    check(H5Fclose(std::exchange(file_, -1)) >= 0, "cannot be closed");
}

Hdf5Reader::Hdf5Reader(const std::filesystem::path& path) : path_(path) {
    const auto lock = lock_hdf5();
    file_ = open_hdf5(path);
}

Hdf5Reader::Hdf5Reader(Hdf5Reader&& other) noexcept
    : path_(std::move(other.path_)), file_(std::exchange(other.file_, -1)) {}

Hdf5Reader::~Hdf5Reader() {
    const auto lock = lock_hdf5();
    if (file_ >= 0) H5Fclose(file_);
}

void Hdf5Reader::fail(const std::string& what) const {
    throw InputError(path_.string() + ": " + what);
}

bool Hdf5Reader::contains(const std::string& name) const {
    const auto lock = lock_hdf5();
    const Hdf5Handle access = access_through_links();
    for (std::size_t slash = name.find('/', 1); slash != std::string::npos; slash = name.find('/', slash + 1)) {
        if (H5Lexists(file_, name.substr(0, slash).c_str(), access.id()) <= 0) return false;
    }
    return H5Lexists(file_, name.c_str(), access.id()) > 0;
}

Hdf5Handle Hdf5Reader::open_dataset(const std::string& name) const {
    if (!contains(name)) fail("dataset " + name + " is missing");
    Hdf5Handle dataset(H5Dopen2(file_, name.c_str(), access_through_links().id()), H5Dclose);
    if (dataset.id() < 0) fail(name + " cannot be opened as a dataset");
    return dataset;
}

Hdf5DatasetInfo Hdf5Reader::info(const std::string& name) const {
    const auto lock = lock_hdf5();
    const Hdf5Handle dataset = open_dataset(name);
    const Hdf5Handle space(H5Dget_space(dataset.id()), H5Sclose), type(H5Dget_type(dataset.id()), H5Tclose);
    Hdf5DatasetInfo result;
    for (const hsize_t dimension : dimensions_of(space.id())) result.shape.push_back(dimension);
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::u8}) {
        if (H5Tequal(type.id(), hdf5_type(dtype).id()) > 0) {
            result.dtype = dtype;
            return result;
        }
    }
    fail("dataset " + name + " has an element type that is neither float32, float16, bfloat16 nor uint8");
}

void Hdf5Reader::read_rows(const std::string& name, std::uint64_t first_row, std::uint64_t rows,
                           std::span<std::byte> destination) const {
    const auto lock = lock_hdf5();
    const Hdf5Handle dataset = open_dataset(name);
    const Hdf5Handle space(H5Dget_space(dataset.id()), H5Sclose), type(H5Dget_type(dataset.id()), H5Tclose);
    const std::vector<hsize_t> shape = dimensions_of(space.id());
    std::size_t row_bytes = H5Tget_size(type.id());
    for (std::size_t d = 1; d < shape.size(); ++d) row_bytes *= static_cast<std::size_t>(shape[d]);
    if (shape.empty() || first_row + rows > shape[0] || rows * row_bytes != destination.size()) {
        fail("dataset " + name + " does not have the expected shape");
    }
    if (destination.empty()) return;
    const Hdf5Handle memory = select_rows(space.id(), shape, first_row, rows);
    if (H5Dread(dataset.id(), type.id(), memory.id(), space.id(), H5P_DEFAULT, destination.data()) < 0) {
        fail("dataset " + name + " cannot be read; its data are damaged (checksum)");
    }
}

void Hdf5Reader::read(const std::string& name, std::span<std::byte> destination) const {
    const Hdf5DatasetInfo found = info(name);
    read_rows(name, 0, found.shape.empty() ? 0 : found.shape[0], destination);
}

std::vector<std::uint64_t> Hdf5Reader::chunk_addresses(const std::string& name, const DatasetChunks& chunks,
                                                       std::uint64_t chunk_rows) const {
    const auto lock = lock_hdf5();
    const Hdf5Handle dataset = open_dataset(name);
    const Hdf5Handle space(H5Dget_space(dataset.id()), H5Sclose);
    const std::size_t dimensions = dimensions_of(space.id()).size();
    std::vector<std::uint64_t> addresses;
    for (std::size_t i = 0; i < chunks.count(); ++i) {
        const std::vector<hsize_t> offset = place_of_chunk(i, chunk_rows, dimensions);
        unsigned skipped_filters = 0;
        haddr_t address = HADDR_UNDEF;
        hsize_t size = 0;
        if (H5Dget_chunk_info_by_coord(dataset.id(), offset.data(), &skipped_filters, &address, &size) < 0 ||
            skipped_filters != 0 || address == HADDR_UNDEF || size != chunks.stored_bytes()) {
            return {};
        }
        addresses.push_back(address);
    }
    return addresses;
}

bool Hdf5Reader::holds(const std::string& name, std::span<const std::byte> data, int threads) const {
    const Hdf5DatasetInfo found = info(name);
    std::uint64_t elements = 1;
    for (const std::uint64_t dimension : found.shape) elements *= dimension;
    if (found.shape.empty() || elements * bytes_of(found.dtype) != data.size()) return false;
    if (data.empty()) return true;
    const std::uint64_t chunk_rows = chunk_rows_of(found.dtype, found.shape);
    const DatasetChunks chunks{data, static_cast<std::size_t>(chunk_rows) * row_bytes_of(found.dtype, found.shape)};
    const std::vector<std::uint64_t> addresses = chunk_addresses(name, chunks, chunk_rows);
    if (addresses.empty()) return false;
    // Read beside the library: other threads may use it meanwhile.
    const InputFile file(path_);
    const ChunkBuffer stored(chunks, threads), expected(chunks, threads);
    const auto is_read = [&](std::uint64_t address, std::span<std::byte> place) {
        try {
            file.read(address, place);
            return true;
        } catch (const InputError&) {  // must not leave the parallel region
            return false;
        }
    };
    bool same = true;
#pragma omp parallel for num_threads(static_cast <int>(stored.chunks)) schedule(static) reduction(&& : same)
    for (std::size_t i = 0; i < chunks.count(); ++i) {
        const auto slot = static_cast<std::size_t>(omp_get_thread_num());
        chunks.assemble(i, expected.place(slot));
        same = same && is_read(addresses[i], stored.place(slot)) &&
               std::memcmp(expected.place(slot).data(), stored.place(slot).data(), chunks.stored_bytes()) == 0;
    }
    return same;
}

std::string Hdf5Reader::attribute(const std::string& object, const std::string& name) const {
    const auto lock = lock_hdf5();
    const Hdf5Handle access = access_through_links();
    if (H5Aexists_by_name(file_, object.c_str(), name.c_str(), access.id()) <= 0) {
        fail("attribute " + name + " of " + object + " is missing");
    }
    const Hdf5Handle attribute(H5Aopen_by_name(file_, object.c_str(), name.c_str(), H5P_DEFAULT, access.id()),
                               H5Aclose);
    const Hdf5Handle type(H5Aget_type(attribute.id()), H5Tclose);
    if (H5Tget_class(type.id()) != H5T_STRING || H5Tis_variable_str(type.id()) > 0) {
        fail("attribute " + name + " of " + object + " is not a fixed-length string");
    }
    std::string value(H5Tget_size(type.id()), '\0');
    if (H5Aread(attribute.id(), type.id(), value.data()) < 0)
        fail("attribute " + name + " of " + object + " is damaged");
    return value;
}

std::vector<std::uint64_t> Hdf5Reader::integer_shape(const std::string& name) const {
    const auto lock = lock_hdf5();
    const Hdf5Handle dataset = open_dataset(name);
    const Hdf5Handle space(H5Dget_space(dataset.id()), H5Sclose), type(H5Dget_type(dataset.id()), H5Tclose);
    if (H5Tget_class(type.id()) != H5T_INTEGER) fail("dataset " + name + " does not hold integers");
    std::vector<std::uint64_t> shape;
    for (const hsize_t dimension : dimensions_of(space.id())) shape.push_back(dimension);
    return shape;
}

void Hdf5Reader::read_integers(const std::string& name, std::span<std::int64_t> destination) const {
    const auto lock = lock_hdf5();
    const Hdf5Handle dataset = open_dataset(name);
    const Hdf5Handle space(H5Dget_space(dataset.id()), H5Sclose);
    if (static_cast<std::size_t>(std::max<hssize_t>(0, H5Sget_simple_extent_npoints(space.id()))) !=
        destination.size()) {
        fail("dataset " + name + " does not have the expected shape");
    }
    // A damaged layout message makes HDF5 1.10.8 read beyond its buffer: what is stored must fit what is declared.
    const Hdf5Handle type(H5Dget_type(dataset.id()), H5Tclose);
    const Hdf5Handle creation(H5Dget_create_plist(dataset.id()), H5Pclose);
    constexpr std::uint64_t best_compression = 1032;
    const std::uint64_t stored = H5Dget_storage_size(dataset.id());
    const std::uint64_t needed = destination.size() * H5Tget_size(type.id());
    if (H5Pget_layout(creation.id()) == H5D_CHUNKED ? needed / best_compression > stored : needed != stored) {
        fail("dataset " + name + " stores " + std::to_string(stored) + " bytes, its shape needs " +
             std::to_string(needed));
    }
    if (H5Dread(dataset.id(), H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, destination.data()) < 0) {
        fail("dataset " + name + " cannot be read; its data are damaged");
    }
}

}  // namespace espalier
