#pragma once
/// Perplexity by the WikiText-2 convention: windows of T tokens that do not overlap, the tail dropped; exp of the mean
/// over windows of the mean cross-entropy of the T-1 next-token predictions.

#include "src/evaluate/likelihoods.h"
#include "src/evaluate/packed_sequences.h"
#include "src/model/model_config.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace espalier {

/// Each window is asked for all its tokens but the first; several make one pass when they fit into `rows`. Throws
/// InputError when there are none, or when the model does not take them.
std::vector<PackedSequences> windows_of_text(const ModelConfig& config, std::span<const std::int32_t> tokens,
                                             std::size_t sequence_length, std::size_t rows = rows_at_once);

struct Perplexity {
    double perplexity = 0;
    double loss = 0;  ///< mean cross-entropy in nats
    std::size_t windows = 0;
};

Perplexity perplexity_of(std::span<const Likelihood> windows, std::size_t sequence_length);

}  // namespace espalier
