#pragma once
/// How likely a model finds continuations of texts: what perplexity and the scores of tasks are made of.

#include "mpi/communicator.h"
#include "src/evaluate/likelihood_pass.h"
#include "src/samples/sample_store.h"
#include "src/weights/model_source.h"

#include <span>
#include <vector>

namespace espalier {

/// References outlive the measurement.
struct EvaluationContext {
    Device& device;
    Communicator& group;    ///< all ranks, for tensors of the device
    Communicator& control;  ///< the same ranks, for host memory
    const ModelSource& source;
    StoragePlace hidden_states;   ///< of the passes, between two blocks
    const SayProgress& progress;  ///< gets sentences for a live line
};

/// Streams the model block by block; the ranks share the passes. Of every continuation of all passes, in order, the
/// same digits on any number of ranks, on every rank. Throws NonFiniteError when the logits overflow. Collective.
std::vector<Likelihood> measure_likelihoods(const EvaluationContext& context, std::span<const PackedSequences> passes);

}  // namespace espalier
