#pragma once
/// Perplexity by the WikiText-2 convention: windows of T tokens that do not overlap, the tail dropped; exp of the mean
/// over windows of the mean cross-entropy of the T-1 next-token predictions.

#include "mpi/session.h"
#include "src/weights/model_source.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace espalier {

struct Perplexity {
    double perplexity = 0;
    double loss = 0;  ///< mean cross-entropy in nats
    std::size_t windows = 0;
};

/// Streams the model block by block; windows are spread over ranks, the sum is in window order, so every rank count
/// gives the same digits. `tokens` is the same on every rank. `progress` gets sentences for a live line. Throws
/// InputError when there are fewer than `sequence_length` tokens, NonFiniteError when the logits overflow. Collective
/// over the session's world.
Perplexity measure_perplexity(Session& session, Device& device, const ModelSource& source,
                              std::span<const std::int32_t> tokens, std::size_t sequence_length,
                              const std::function<void(const std::string&)>& progress);

}  // namespace espalier
