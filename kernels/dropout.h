#pragma once
/// Dropout as a pure function of where an element stands, so that it depends neither on ranks nor on the order of work.

#include <cstdint>

namespace espalier {

/// Which elements of a [T, n] tensor are dropped: those whose word of Philox4x32-10 is below probability x 2^32. The
/// word is number column % 4 of counter {column / 4, row (low and high half), stream} under the key `seed`, where row
/// counts from `first_row`.
struct DropoutMask {
    double probability = 0;  ///< from 0 to less than 1
    std::uint64_t seed = 0;
    std::uint32_t stream = 0;     ///< tells inputs apart that have rows of the same numbers
    std::uint64_t first_row = 0;  ///< number of the tensor's first row in its stream

    std::uint32_t threshold() const { return static_cast<std::uint32_t>(probability * 4294967296.0); }
    /// What kept elements are multiplied by, so that their expectation stays.
    double kept_scale() const { return 1 / (1 - probability); }
};

}  // namespace espalier
