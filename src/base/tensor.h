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

    /// The beginning of the same memory as a matrix of the same shape in another type that is not larger.
    TensorView as(DType other) const {
        require(bytes_of(other) <= bytes_of(dtype), "a type that fits the tensor's memory");
        return {data, other, rows, columns};
    }
    /// One element of a row vector, as [1, 1].
    TensorView element(std::size_t index) const {
        require(index < size(), "an element of the tensor");
        return {data + index * bytes_of(dtype), dtype, 1, 1};
    }

    float* floats() const {
        require(dtype == DType::f32, "a float32 tensor");
        return reinterpret_cast<float*>(data);
    }
    double* doubles() const {
        require(dtype == DType::f64, "a float64 tensor");
        return reinterpret_cast<double*>(data);
    }
    std::uint64_t* counts() const {
        require(dtype == DType::u64, "a uint64 tensor");
        return reinterpret_cast<std::uint64_t*>(data);
    }
    std::uint8_t* mask_bytes() const {
        require(dtype == DType::u8, "a uint8 tensor");
        return reinterpret_cast<std::uint8_t*>(data);
    }
};

}  // namespace espalier
