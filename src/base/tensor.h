#pragma once
/// A view of a row-major matrix that somebody else owns. The memory may be the host's or a device's: only `Device`
/// operations look inside.

#include "src/base/dtype.h"
#include "src/base/error.h"

#include <cstddef>

namespace espalier {

/// Non-owning, contiguous, row-major [rows, columns]. A vector is one row.
struct TensorView {
    std::byte* data = nullptr;
    DType dtype = DType::f32;
    std::size_t rows = 0;
    std::size_t columns = 0;

    std::size_t size() const { return rows * columns; }
    std::size_t bytes() const { return size() * bytes_of(dtype); }
    bool empty() const { return data == nullptr; }

    /// Rows [begin, end) of this matrix.
    TensorView row_range(std::size_t begin, std::size_t end) const {
        require(begin <= end && end <= rows, "row range inside the tensor");
        return {data + begin * columns * bytes_of(dtype), dtype, end - begin, columns};
    }

    /// The same memory seen as [new_rows, size / new_rows].
    TensorView reshaped(std::size_t new_rows, std::size_t new_columns) const {
        require(new_rows * new_columns == size(), "reshape keeps the number of elements");
        return {data, dtype, new_rows, new_columns};
    }

    float* floats() const {
        require(dtype == DType::f32, "a float32 tensor");
        return reinterpret_cast<float*>(data);
    }
    std::uint8_t* mask_bytes() const {
        require(dtype == DType::u8, "a uint8 tensor");
        return reinterpret_cast<std::uint8_t*>(data);
    }
};

}  // namespace espalier
