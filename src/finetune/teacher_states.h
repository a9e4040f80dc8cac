#pragma once
/// The dense model's hidden states behind its final norm, of all samples: computed once, since the teacher does not
/// change, and kept where each sample's holder has room. A step's passes get those of their samples.

#include "src/finetune/head_loss.h"
#include "src/finetune/training_context.h"
#include "src/finetune/training_passes.h"
#include "src/samples/sample_store.h"

#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace espalier {

class TeacherStates {
  public:
    /// Takes all samples through the teacher, whose blocks the ranks read together. `student` has the head where the
    /// two models have the same. `progress` gets sentences for a live line. References outlive it. Collective.
    TeacherStates(const TrainingContext& context, const OuterWeights& student,
                  const std::function<void(const std::string&)>& progress);

    const OuterWeights& head() const { return context_.teacher_shares_head ? student_ : *outer_; }
    /// Brings those of `passes` to the ranks that compute them: rank r has passes [part_of(passes, ranks, r)).
    /// Collective.
    void collect(std::span<const TrainingPass> passes);
    /// Of this rank's pass `index` since its first: [samples (T - 1), hidden], in the head's type.
    TensorView of(std::size_t index) const { return collected_[index]; }

  private:
    std::size_t holder_of(std::size_t sample) const;

    const TrainingContext& context_;
    const OuterWeights& student_;
    std::vector<TrainingPass> all_;  ///< in which the teacher's states are computed, shared by the ranks
    std::optional<OuterWeights> outer_;
    std::optional<SampleStore> states_;  ///< of this rank's passes of them, sample by sample
    Tensor storage_;
    Tensor on_their_way_;  ///< to other ranks, when they lie in host memory
    std::vector<TensorView> collected_;
};

}  // namespace espalier
