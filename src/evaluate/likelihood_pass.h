#pragma once
/// One rank's share of the passes on their way through a whole model, and the likelihoods that come out.

#include "mpi/communicator.h"
#include "src/evaluate/model_head.h"
#include "src/evaluate/packed_sequences.h"
#include "src/samples/hidden_states.h"
#include "src/weights/model_source.h"

#include <cstddef>
#include <span>
#include <vector>

namespace espalier {

/// Of one continuation.
struct Likelihood {
    double logarithm = 0;  ///< of the probability of all its tokens, natural
    bool greedy = true;    ///< each of its tokens is the most likely one
};

/// The passes that a rank computes.
inline IndexRange passes_of_rank(std::size_t passes, const Communicator& ranks) {
    return part_of(passes, static_cast<std::size_t>(ranks.size()), static_cast<std::size_t>(ranks.rank()));
}

class LikelihoodPass {
  public:
    /// Embeds this rank's share of `passes`, of which every rank has all; their states lie in `place` from block to
    /// block. `group` is for tensors of the device. References outlive it. Collective, as the two steps are.
    LikelihoodPass(Device& device, Communicator& group, const ModelSource& source,
                   std::span<const PackedSequences> passes, StoragePlace place);

    /// Takes the states through all decoder blocks, each read by all ranks together.
    void run_blocks(const SayProgress& progress);
    /// Of every continuation of this rank's passes, in order.
    std::vector<Likelihood> run_head(const SayProgress& progress);

  private:
    Device& device_;
    Communicator& group_;
    const ModelSource& source_;
    PackingShape shape_;                       ///< of all ranks' passes: one without any takes part in the loading
    std::span<const PackedSequences> passes_;  ///< this rank's
    HiddenStates x_;                           ///< one sample a pass, filled up with any token
};

}  // namespace espalier
