#pragma once
/// How requests become passes: from the shortest to the longest, the context of several continuations once.

#include "io/request_file.h"
#include "src/evaluate/packed_sequences.h"
#include "src/model/model_config.h"

#include <cstddef>
#include <limits>
#include <vector>

namespace espalier {

struct RequestPacking {
    /// The model is streamed once for each. Passes of one part have about the same size, and one table of rotary
    /// frequencies: those of longrope change where sequences become long.
    std::vector<std::vector<PackedSequences>> parts;
    std::vector<std::size_t> order;  ///< the request of each continuation of all parts, one after the other
    std::size_t cut = 0;             ///< requests whose context lost its beginning
};

struct PackingLimits {
    std::size_t rows_of_pass = rows_at_once;  ///< only what cannot be taken apart has more
    /// Bounds the memory of a part's states; does not change the passes.
    std::size_t rows_of_part = std::numeric_limits<std::size_t>::max();
};

/// The passes are a function of requests and model alone, so that every number of ranks makes the same. A request that
/// the model cannot take loses the beginning of its context, as in lm-evaluation-harness. Throws InputError when a
/// continuation alone is too long.
RequestPacking pack_requests(const RequestTable& requests, const ModelConfig& config, const PackingLimits& limits = {});

}  // namespace espalier
