#pragma once
/// Reconstruction of a pruned block's outputs: the weights that are left are trained for some epochs so that the
/// block's outputs come close to the targets again (ReconstructionOptions). The mask stays as it is.
///
/// The same idea as "block-wise reconstruction" in EBFT (arXiv 2402.12419) and Shin et al. (arXiv 2406.15524); rates
/// relative to the weights, samples held out and never worse than the start are ours.

#include "src/blocks/group_context.h"
#include "src/blocks/phase_clock.h"
#include "src/method/prune_options.h"
#include "src/model/decoder_block.h"
#include "src/optimize/optimized_weights.h"
#include "src/optimize/optimizer_state.h"
#include "src/optimize/step_sharing.h"
#include "src/samples/dense_outputs.h"
#include "src/samples/hidden_states.h"
#include "src/samples/sample_split.h"

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

namespace espalier {

/// What stays the same while one block is reconstructed. References outlive it.
struct ReconstructionProblem {
    std::size_t block = 0;
    DecoderBlock& decoder;
    const HiddenStates& x;                 ///< inputs: the pruned model's hidden states
    const DenseOutputs& targets;           ///< what the outputs on them should be
    const WeightPartition& partition;      ///< of optimiser state
    const std::function<void()>& on_idle;  ///< called after every epoch
};

class Reconstruction {
  public:
    /// `weights` are the run's weights of the block, pruned as `mask` says.
    Reconstruction(const GroupContext& context, const PruneOptions& options, const ReconstructionProblem& problem,
                   BlockWeights& weights, const BlockTensor& mask, PhaseClock& clock);

    /// Samples that it does not train with.
    const std::vector<std::size_t>& held_out() const { return split_.held_out; }

    /// Trains, and leaves the best of what was looked at in the run's weights, rounded to the output type. Returns the
    /// loss on the held-out samples, relative to the targets or a mean over tokens: of the start, then after each
    /// epoch. Throws NonFiniteError. Collective.
    std::vector<double> run();

  private:
    /// Samples of a step that go through the block together, and their targets, on the device.
    struct Pass {
        TensorView x, target;
        std::vector<RowSegment> segments;
    };
    /// The root mean square of each matrix's weights that are not zero.
    std::vector<double> sizes_of_weights() const;
    void train_epoch(std::size_t epoch, std::size_t steps_of_epoch);
    Pass gather(const std::vector<StepSample>& samples, std::size_t first, std::size_t count) const;
    double held_out_error();
    /// Replaces the outputs of a pass by the gradient of its loss, which goes into the float64 element `loss`.
    void apply_loss(TensorView target, TensorView output, TensorView loss) const;
    /// Between the masters and the best ones so far.
    void keep_best() const;
    void restore_best();

    GroupContext context_;
    const PruneOptions& options_;
    ReconstructionProblem problem_;
    PhaseClock& clock_;
    const BlockTensor& mask_;
    SampleSplit split_;
    OptimizedWeights weights_;
    OptimizerState state_;
    std::unique_ptr<StepSharing> sharing_;
    PartTensor best_;
    double held_out_size_ = 0;  ///< what losses on the held-out samples are relative to
    Tensor loss_;               ///< of a pass, which nobody reads
    std::size_t steps_taken_ = 0, steps_ = 0;
    Tensor output_;                ///< f(x) of a pass, then the gradient of the loss
    Tensor pass_x_, pass_target_;  ///< of several samples
};

}  // namespace espalier
