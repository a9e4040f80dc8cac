#include "src/samples/sample_split.h"

namespace espalier {

SampleSplit split_samples(std::size_t samples) {
    SampleSplit split;
    for (std::size_t n = 0; n < samples; ++n) {
        const bool held_out = samples < 8 ? n + 1 == samples : n % 8 == 7;
        (held_out ? split.held_out : split.training).push_back(n);
    }
    return split;
}

}  // namespace espalier
