#pragma once
/// The smallest GPU that the kernels are made for.

#include <cstddef>

namespace espalier::cuda {

/// Shared memory that a block may ask for on an A100; every kernel has a form for which it is enough.
inline constexpr std::size_t least_shared_bytes = std::size_t{163} << 10;

}  // namespace espalier::cuda
