#pragma once
/// What a run calibrates with.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace espalier {

/// Calibration tokens [samples, sequence_length], row-major.
struct CalibrationTokens {
    std::vector<std::int32_t> ids;
    std::size_t samples = 0;
    std::size_t sequence_length = 0;
};

}  // namespace espalier
