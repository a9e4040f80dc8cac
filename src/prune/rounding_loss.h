#pragma once
/// What the rounding to the output type takes back from regional optimisation.

#include "src/base/dtype.h"

#include <cstddef>
#include <cstdint>
#include <span>

namespace espalier {

/// Share of the surviving weights (mask not 0) that are written as the dense weights would be written. `dense` and
/// `written` are host memory in their types, one element for each of `mask`; 0 when none survives.
double unchanged_weight_share(DType dense_dtype, std::span<const std::byte> dense, DType written_dtype,
                              std::span<const std::byte> written, std::span<const std::uint8_t> mask);

}  // namespace espalier
