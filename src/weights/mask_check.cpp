#include "src/weights/mask_check.h"

#include <cmath>
#include <cstring>
#include <vector>

namespace espalier {

namespace {

bool is_positive_zero(std::span<const std::byte> element) {
    for (const std::byte byte : element) {
        if (byte != std::byte{0}) return false;
    }
    return true;
}

/// Whether a row is as it must be: the usual case, without branches so that the compiler vectorises it. Any non-zero
/// bit of a removed weight, an exponent of ones, or a group with another count gives false.
template <typename Bits>
bool row_is_sound(const std::uint8_t* mask, const std::byte* weights, std::size_t columns, std::size_t group,
                  std::size_t remove, Bits exponent) {
    Bits remains = 0;
    std::uint32_t infinite = 0;
    for (std::size_t j = 0; j < columns; ++j) {
        Bits bits;
        std::memcpy(&bits, weights + j * sizeof(Bits), sizeof(Bits));
        remains = static_cast<Bits>(remains | (mask[j] == 0 ? bits : Bits{0}));
        infinite |= (bits & exponent) == exponent ? 1U : 0U;
    }
    if (remains != 0 || infinite != 0) return false;
    std::uint32_t others = 0;
    for (std::size_t first = 0; first < columns; first += group) {
        std::uint32_t removed = 0;
        for (std::size_t j = first; j < first + group; ++j) removed += mask[j] == 0 ? 1U : 0U;
        others |= removed ^ static_cast<std::uint32_t>(remove);
    }
    return others == 0;
}

bool row_is_sound(DType dtype, const std::uint8_t* mask, const std::byte* weights, std::size_t columns,
                  std::size_t group, std::size_t remove) {
    if (dtype == DType::f32) return row_is_sound<std::uint32_t>(mask, weights, columns, group, remove, 0x7F800000U);
    const std::uint16_t exponent = dtype == DType::f16 ? 0x7C00U : 0x7F80U;
    return row_is_sound<std::uint16_t>(mask, weights, columns, group, remove, exponent);
}

std::string place(std::size_t row, std::size_t column) {
    return "row " + std::to_string(row) + ", column " + std::to_string(column);
}

}  // namespace

std::string check_pruned_matrix(std::span<const std::uint8_t> mask, std::span<const std::byte> weights, DType dtype,
                                std::size_t columns, const PruningPattern& pattern, int threads) {
    const std::size_t group = pattern.structured() ? pattern.group : columns;
    const std::size_t remove = pattern.structured() ? pattern.group - pattern.keep : pattern.removed_per_row(columns);
    const std::size_t element = bytes_of(dtype), rows = columns == 0 ? 0 : mask.size() / columns;
    const auto is_sound = [&](std::size_t row) {
        return row_is_sound(dtype, mask.data() + row * columns, weights.data() + row * columns * element, columns,
                            group, remove);
    };
    bool all_sound = true;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(&& : all_sound)
    for (std::size_t row = 0; row < rows; ++row) all_sound = all_sound && is_sound(row);
    if (all_sound) return "";
    std::vector<float> values(columns);
    for (std::size_t row = 0; row < rows; ++row) {
        const std::byte* const stored = weights.data() + row * columns * element;
        if (is_sound(row)) continue;
        widen_to_float(dtype, stored, columns, values.data());
        for (std::size_t first = 0; first < columns; first += group) {
            std::size_t removed = 0;
            for (std::size_t j = first; j < first + group; ++j) {
                const std::size_t i = row * columns + j;
                removed += mask[i] == 0 ? 1U : 0U;
                if (mask[i] == 0 && !is_positive_zero(weights.subspan(i * element, element))) {
                    return "the removed weight at " + place(row, j) + " is not +0.0";
                }
                if (!std::isfinite(values[j])) return "the weight at " + place(row, j) + " is not finite";
            }
            if (removed != remove) {
                return "the group that starts at " + place(row, first) + " removes " + std::to_string(removed) +
                       " weights, not " + std::to_string(remove);
            }
        }
    }
    return "";
}

std::string check_zeros(std::span<const std::byte> weights, DType dtype, std::size_t columns,
                        const PruningPattern& pattern) {
    const std::size_t group = pattern.structured() ? pattern.group : columns;
    const std::size_t remove = pattern.structured() ? pattern.group - pattern.keep : pattern.removed_per_row(columns);
    const std::size_t element = bytes_of(dtype);
    std::vector<float> values(columns);
    for (std::size_t row = 0; row < weights.size() / element / columns; ++row) {
        widen_to_float(dtype, weights.data() + row * columns * element, columns, values.data());
        for (std::size_t first = 0; first < columns; first += group) {
            std::size_t zeros = 0;
            for (std::size_t j = first; j < first + group; ++j) {
                zeros += values[j] == 0.0F ? 1U : 0U;
                if (!std::isfinite(values[j])) return "the weight at " + place(row, j) + " is not finite";
            }
            if (zeros < remove) {
                return "the group that starts at " + place(row, first) + " has " + std::to_string(zeros) +
                       " zeros, fewer than " + std::to_string(remove);
            }
        }
    }
    return "";
}

}  // namespace espalier
