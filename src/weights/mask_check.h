#pragma once
/// The rule that every pruned matrix keeps: exact groups or rows, removed weights +0.0, nothing infinite.

#include "src/base/dtype.h"
#include "src/base/pruning_pattern.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace espalier {

/// Empty when `mask` (one byte a weight, 1 = kept) has exactly the pattern's count in every group or row and `weights`
/// (stored as `dtype`) are +0.0 wherever it removes; otherwise a sentence about the first fault. `threads` of the host
/// look.
std::string check_pruned_matrix(std::span<const std::uint8_t> mask, std::span<const std::byte> weights, DType dtype,
                                std::size_t columns, const PruningPattern& pattern, int threads = 1);

/// The same without a mask: empty when every group or row holds at least as many zeros as the pattern removes (a
/// surviving weight may be zero too) and every weight is finite.
std::string check_zeros(std::span<const std::byte> weights, DType dtype, std::size_t columns,
                        const PruningPattern& pattern);

}  // namespace espalier
