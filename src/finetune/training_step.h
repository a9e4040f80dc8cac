#pragma once
/// One step of fine-tuning: the samples of all ranks forth and back through the model, gradients summed in a fixed
/// order (one leaf a pass), and followed: block by block on the way back, or, where their norm is bounded, when all of
/// them are there. Boundary hidden states of the blocks are kept; what lies inside a block is computed again on the way
/// back.

#include "mpi/ordered_sum.h"
#include "src/finetune/gradient_pass.h"
#include "src/finetune/head_loss.h"
#include "src/finetune/student_weights.h"
#include "src/finetune/teacher_states.h"
#include "src/finetune/training_passes.h"
#include "src/finetune/update_dropout.h"
#include "src/model/decoder_block.h"
#include "src/samples/sample_store.h"

#include <cstddef>
#include <map>
#include <optional>
#include <span>
#include <vector>

namespace espalier {

/// Means over predictions, in nats.
struct MeanLoss {
    double language_model = 0, divergence = 0;
    /// What is minimised.
    double total(const LossWeights& weights) const {
        return static_cast<double>(weights.language_model) * language_model +
               static_cast<double>(weights.divergence) * divergence;
    }
};

class TrainingStep {
  public:
    /// `teacher` is null when the loss does not ask it. References outlive it. Collective, as all members are.
    TrainingStep(const TrainingContext& context, OuterWeights& outer, StudentWeights& student, TrainedValues& values,
                 TeacherStates* teacher);

    struct Result {
        MeanLoss loss;
        double gradient_norm = 0;  ///< before it is clipped
    };
    /// One step on `samples`; `number` of steps taken with it. Where loss or gradient norm are not finite, what is
    /// trained is lost.
    Result take(std::span<const std::size_t> samples, std::size_t number);
    /// The loss on `samples`, nothing else.
    MeanLoss measure(std::span<const std::size_t> samples);

  private:
    /// A batch on its way through the model.
    struct Batch;
    /// What a way through the model is for: a step, which keeps boundary states and drops inputs of updates, or a look.
    enum class Way { step, look };
    void run_forward(Batch& batch, Way way);
    /// The decoder's products get their terms, when the way has any, for a pass of the batch.
    void begin_pass(const Batch& batch, std::size_t pass, const BlockWeights& weights, Way way);
    /// That is asked for after `block` on the way forth; `turns`: a way back follows.
    std::optional<std::size_t> block_after(std::size_t block, bool turns) const;
    MeanLoss mean_of(const Batch& batch) const;
    void run_head(Batch& batch, bool with_gradient);
    void run_backward(Batch& batch);
    /// The unit's gradient of the batch is there.
    void follow(std::size_t unit, const Batch& batch);
    std::vector<OrderedSum>& sums_for(const std::vector<std::size_t>& leaf_offsets);

    const TrainingContext& context_;
    OuterWeights& outer_;
    StudentWeights& student_;
    TrainedValues& values_;
    TeacherStates* teacher_;
    std::size_t rows_;  ///< of a pass, at most
    DecoderBlock decoder_;
    HeadLoss head_;
    UpdateDropout dropout_;
    GradientPass gradients_;
    std::optional<SampleStore> states_;  ///< of this rank's passes before every block, and behind the last
    Tensor dstates_;                     ///< gradients of this rank's passes, one after the other
    Tensor output_;                      ///< of a block
    std::map<std::size_t, std::vector<OrderedSum>> sums_;  ///< of so many leaves: two for blocks, one for the end
};

}  // namespace espalier
