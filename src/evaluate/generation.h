#pragma once
/// Tokens drawn from the model itself, one after the other: text that a model takes for its own, for calibration
/// without a corpus, or to see what pruning did to it.
///
/// Sequences go through the model in batches that the options name, so that a token depends on model, options and the
/// number of its sequence, and not on the ranks. Where one device holds the whole model every rank generates batches of
/// its own. Otherwise several ranks are the stages of a pipeline: each holds some blocks, with the keys and values of
/// the tokens so far, and batches follow each other through them.

#include "kernels/device.h"
#include "mpi/communicator.h"
#include "src/evaluate/model_head.h"
#include "src/weights/model_source.h"

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace espalier {

struct GenerationOptions {
    std::size_t samples = 128;
    std::size_t sequence_length = 2048;  ///< tokens of each sample
    SamplingRule rule;
    std::size_t first_number = 0;  ///< of the samples: their draws are those of samples first_number, …
    std::size_t batch = 32;        ///< sequences that go through the model together
    std::size_t stages = 0;        ///< ranks that share one copy of the model; 0: choose_stages
    /// What sequences begin with, [rows, prompt_length]; sample i takes row i modulo rows.
    std::vector<std::int32_t> prompts;
    std::size_t prompt_length = 1;
    /// Whether the prompts are part of the samples, or only stand before them, as the token at a document's begin.
    bool prompts_are_part = false;

    std::size_t prompt_rows() const { return prompts.size() / prompt_length; }
    /// Tokens that go through the model, or come out of it.
    std::size_t total_length() const { return sequence_length + (prompts_are_part ? 0 : prompt_length); }
};

/// One token for each sample, drawn evenly from the vocabulary by counter: prompts for text of all kinds.
std::vector<std::int32_t> prompts_from_vocabulary(std::size_t samples, std::size_t vocabulary, std::uint64_t seed);

/// References outlive the generation.
struct GenerationContext {
    Device& device;
    Communicator& group;    ///< all ranks, for tensors of the device
    Communicator& control;  ///< the same ranks, for host memory
    const ModelSource& source;
    const SayProgress& progress;                                   ///< gets sentences for a live line
    std::size_t memory = std::numeric_limits<std::size_t>::max();  ///< of the host, that a rank without a GPU may take
    std::string advice = "use more ranks or a smaller --batch";    ///< where it does not fit
};

/// [samples, sequence_length], on every rank. Throws ResourceError when the ranks together do not hold model and cache,
/// NonFiniteError when the model overflows. Collective.
std::vector<std::int32_t> generate_tokens(const GenerationContext& context, const GenerationOptions& options);

/// The ranks that share one copy of the model: the fewest whose number divides that of all and which hold it, each in
/// `bytes` of memory. Throws ResourceError, with `advice`, when there are none.
std::size_t choose_stages(const ModelSource& source, DType compute, const GenerationOptions& options, std::size_t ranks,
                          std::size_t bytes, const std::string& advice);

}  // namespace espalier
