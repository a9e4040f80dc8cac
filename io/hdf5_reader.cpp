#include "io/file.h"
#include "io/hdf5_open.h"
#include "io/hdf5_shapes.h"

#include <omp.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace espalier {

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
    const auto dimensions = static_cast<std::size_t>(std::max(0, H5Sget_simple_extent_ndims(space.id())));
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
