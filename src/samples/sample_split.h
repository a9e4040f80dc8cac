#pragma once
/// Calibration samples that a choice is made with, and those that it is judged by.

#include <cstddef>
#include <vector>

namespace espalier {

/// Both ascending.
struct SampleSplit {
    std::vector<std::size_t> training, held_out;
};

/// Every eighth of `samples` samples (the last one when there are fewer than eight) is held out.
SampleSplit split_samples(std::size_t samples);

}  // namespace espalier
