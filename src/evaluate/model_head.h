#pragma once
/// The end of a model: final norm and head, from hidden states to panels of logits. No logits of a whole vocabulary
/// ever exist.

#include "kernels/device.h"
#include "mpi/communicator.h"
#include "src/base/index_range.h"
#include "src/weights/model_source.h"

#include <cstddef>
#include <functional>
#include <string>

namespace espalier {

/// Sentences for a live line.
using SayProgress = std::function<void(const std::string&)>;

class ModelHead {
  public:
    /// For passes of up to `most_rows` rows. References outlive it.
    ModelHead(Device& device, Communicator& group, const ModelSource& source, std::size_t most_rows)
        : device_(device), group_(group), source_(source), most_rows_(most_rows) {}

    /// float32 hidden states [rows, hidden] of a pass, on the device.
    using States = std::function<TensorView(std::size_t pass)>;
    /// Logits [rows, panel] of a pass for the tokens from first_token on; valid during the call.
    using Consume = std::function<void(std::size_t pass, std::size_t first_token, TensorView logits)>;
    /// Goes through the vocabulary in parts, and for each through the passes in order, with the states that
    /// `begin_part` then hands out. Rank 0 reads the head for all. Collective, also for a rank without passes.
    void run(IndexRange passes, const std::function<States()>& begin_part, const Consume& consume,
             const SayProgress& progress) const;

  private:
    Device& device_;
    Communicator& group_;
    const ModelSource& source_;
    std::size_t most_rows_;
};

}  // namespace espalier
