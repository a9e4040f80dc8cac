#pragma once
/// Shapes, chunks and selections of datasets, as files are written and read with them. Only files in io/ may include
/// this header, which knows hdf5.h.

#include "io/dataset_chunks.h"
#include "io/hdf5_handle.h"
#include "src/base/error.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace espalier {

inline std::size_t row_bytes_of(DType dtype, const std::vector<std::uint64_t>& shape) {
    std::size_t bytes = bytes_of(dtype);
    for (std::size_t d = 1; d < shape.size(); ++d) bytes *= static_cast<std::size_t>(shape[d]);
    return bytes;
}

/// Rows of a chunk: about 4 MiB, the dataset itself when it is smaller.
inline std::uint64_t chunk_rows_of(DType dtype, const std::vector<std::uint64_t>& shape) {
    constexpr std::size_t chunk_bytes = std::size_t{4} << 20;
    return std::min<std::uint64_t>(shape[0], std::max<std::size_t>(1, chunk_bytes / row_bytes_of(dtype, shape)));
}

inline Hdf5Handle chunked_properties(DType dtype, const std::vector<std::uint64_t>& shape) {
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

inline Hdf5Handle make_space(const std::vector<std::uint64_t>& shape) {
    const std::vector<hsize_t> dimensions(shape.begin(), shape.end());
    return {shape.empty() ? H5Screate(H5S_SCALAR)
                          : H5Screate_simple(static_cast<int>(dimensions.size()), dimensions.data(), nullptr),
            H5Sclose};
}

/// Selects rows [first, first + rows) in `space` and returns the matching memory space.
inline Hdf5Handle select_rows(hid_t space, std::vector<hsize_t> shape, std::uint64_t first, std::uint64_t rows) {
    require(!shape.empty(), "rows of a dataset with dimensions");
    std::vector<hsize_t> start(shape.size(), 0);
    start[0] = first;
    shape[0] = rows;
    H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, shape.data(), nullptr);
    return {H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr), H5Sclose};
}

inline std::vector<hsize_t> dimensions_of(hid_t space) {
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

inline std::vector<hsize_t> place_of_chunk(std::size_t index, std::uint64_t chunk_rows, std::size_t dimensions) {
    std::vector<hsize_t> place(dimensions, 0);
    place[0] = index * chunk_rows;
    return place;
}

}  // namespace espalier
