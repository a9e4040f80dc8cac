#include "io/hdf5_open.h"
#include "io/hdf5_shapes.h"

#include <algorithm>
#include <utility>

namespace espalier {

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
    create_as(name, hdf5_type(dtype).id(), dtype, shape);
}

void Hdf5Writer::create_as(const std::string& name, hid_t type, DType chunks, const std::vector<std::uint64_t>& shape) {
    const auto lock = lock_hdf5();
    const Hdf5Handle space = make_space(shape), properties = chunked_properties(chunks, shape);
    const Hdf5Handle links(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
    H5Pset_create_intermediate_group(links.id(), 1);
    const Hdf5Handle dataset(
        H5Dcreate2(file_, name.c_str(), type, space.id(), links.id(), properties.id(), H5P_DEFAULT), H5Dclose);
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

void Hdf5Writer::write_token_ids(const std::string& name, std::uint64_t rows, std::uint64_t columns,
                                 std::span<const std::int32_t> ids) {
    require(ids.size() == rows * columns && !ids.empty(), "token ids of that shape");
    create_as(name, H5T_STD_I32LE, DType::f32, {rows, columns});  // chunks go by the four bytes of an element
    write_rows(name, 0, rows, std::as_bytes(ids));
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

}  // namespace espalier
