#include "tests/emulation/matrix_product.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <vector>

namespace espalier::emulation {

namespace {

float element(const ColumnMajor& matrix, std::size_t row, std::size_t column) {
    const std::size_t i = column * matrix.leading + row;
    switch (matrix.type) {
        case CUDA_R_16F:
            return __half2float(static_cast<const __half*>(matrix.data)[i]);
        case CUDA_R_16BF:
            return __bfloat162float(static_cast<const __nv_bfloat16*>(matrix.data)[i]);
        default:
            return static_cast<const float*>(matrix.data)[i];
    }
}

void set_element(const ColumnMajor& matrix, std::size_t row, std::size_t column, float value) {
    const std::size_t i = column * matrix.leading + row;
    void* const data = const_cast<void*>(matrix.data);
    switch (matrix.type) {
        case CUDA_R_16F:
            static_cast<__half*>(data)[i] = __float2half_rn(value);
            break;
        case CUDA_R_16BF:
            static_cast<__nv_bfloat16*>(data)[i] = __float2bfloat16_rn(value);
            break;
        default:
            static_cast<float*>(data)[i] = value;
    }
}

/// What tensor cores see of a float32 factor: 10 mantissa bits.
float narrowed_to_tf32(float value) {
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) & ~0x1fffU);
}

/// The factor as it takes part, widened, columns one behind the other; transposed when that differs from the matrix.
std::vector<float> packed(const ColumnMajor& matrix, bool transposed, bool narrow) {
    std::vector<float> values(matrix.rows * matrix.columns);
    for (std::size_t column = 0; column < matrix.columns; ++column) {
        for (std::size_t row = 0; row < matrix.rows; ++row) {
            const float value = element(matrix, row, column);
            values[transposed ? row * matrix.columns + column : column * matrix.rows + row] =
                narrow ? narrowed_to_tf32(value) : value;
        }
    }
    return values;
}

constexpr std::size_t tile_rows = 64, tile_columns = 4;
using Tile = std::array<std::array<float, tile_rows>, tile_columns>;

/// Sums of up to 64 x 4 elements, all 64 x 4 computed; `a` is padded.
void sum_tile(const float* a, std::size_t a_stride, const std::array<const float*, tile_columns>& b, std::size_t depth,
              Tile& sums) {
    for (auto& column : sums) column.fill(0);
    for (std::size_t k = 0; k < depth; ++k) {
        const float* const left = a + k * a_stride;
        for (std::size_t j = 0; j < tile_columns; ++j) {
            const float right = b[j][k];
            for (std::size_t i = 0; i < tile_rows; ++i) sums[j][i] += left[i] * right;
        }
    }
}

}  // namespace

void multiply(const ColumnMajor& a, const ColumnMajor& b, bool narrow_factors, const ColumnMajor& before,
              const ColumnMajor& result) {
    const std::size_t m = result.rows, n = result.columns, depth = a.transposed ? a.rows : a.columns;
    std::vector<float> left = packed(a, a.transposed, narrow_factors);  // column k at k * m
    left.resize(left.size() + tile_rows);
    const std::vector<float> right = packed(b, b.transposed, narrow_factors);  // column j at j * depth
    Tile sums;
    for (std::size_t column = 0; column < n; column += tile_columns) {
        std::array<const float*, tile_columns> columns{};
        for (std::size_t j = 0; j < tile_columns; ++j) {
            columns[j] = right.data() + std::min(column + j, n - 1) * depth;
        }
        for (std::size_t row = 0; row < m; row += tile_rows) {
            sum_tile(left.data() + row, m, columns, depth, sums);
            for (std::size_t j = column; j < std::min(n, column + tile_columns); ++j) {
                for (std::size_t i = row; i < std::min(m, row + tile_rows); ++i) {
                    const float sum = sums[j - column][i - row];
                    set_element(result, i, j, before.data == nullptr ? sum : sum + element(before, i, j));
                }
            }
        }
    }
}

}  // namespace espalier::emulation
