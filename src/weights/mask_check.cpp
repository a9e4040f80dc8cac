#include "src/weights/mask_check.h"

#include <cmath>
#include <vector>

namespace espalier {

namespace {

bool is_positive_zero(std::span<const std::byte> element) {
    for (const std::byte byte : element) {
        if (byte != std::byte{0}) return false;
    }
    return true;
}

std::string place(std::size_t row, std::size_t column) {
    return "row " + std::to_string(row) + ", column " + std::to_string(column);
}

}  // namespace

std::string check_pruned_matrix(std::span<const std::uint8_t> mask, std::span<const std::byte> weights, DType dtype,
                                std::size_t columns, const PruningPattern& pattern) {
    const std::size_t group = pattern.structured() ? pattern.group : columns;
    const std::size_t remove = pattern.structured() ? pattern.group - pattern.keep : pattern.removed_per_row(columns);
    const std::size_t element = bytes_of(dtype);
    std::vector<float> values(columns);
    for (std::size_t row = 0; row < mask.size() / columns; ++row) {
        widen_to_float(dtype, weights.data() + row * columns * element, columns, values.data());
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
