#pragma once
/// Regional optimisation (Wanda++ §4.2): rounds of masking and of optimiser steps that pull the pruned block's outputs
/// towards the dense ones, on samples drawn anew in each round. When and how large steps are is the schedule's
/// business, what a step does that of its rule, and who takes it that of step_sharing.

#include "src/blocks/group_context.h"
#include "src/blocks/phase_clock.h"
#include "src/method/block_masker.h"
#include "src/method/prune_options.h"
#include "src/model/decoder_block.h"
#include "src/optimize/float32_products_scope.h"
#include "src/optimize/optimized_weights.h"
#include "src/optimize/optimizer_schedule.h"
#include "src/optimize/optimizer_state.h"
#include "src/optimize/step_sharing.h"
#include "src/samples/dense_outputs.h"
#include "src/samples/hidden_states.h"

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

namespace espalier {

/// What stays the same while one block is optimised, possibly several times (learning-rate search).
struct RegionalProblem {
    std::size_t block = 0;
    DecoderBlock& decoder;
    const HiddenStates& x;
    const DenseOutputs& dense_outputs;
    const InputNormCollector& dense_norms;  ///< every sample observed with the dense weights
    const BlockMasker& masker;
    const BlockTensor* first_mask;         ///< of weights that were compensated; null: the first round chooses it
    const std::function<void()>& on_idle;  ///< called after every round, for bookkeeping that should not wait longer
};

class RegionalOptimizer {
  public:
    using AfterFirstMask = std::function<void(const std::vector<std::size_t>& drawn)>;

    /// `weights` are the run's weights of the block, dense or compensated when run() begins; `mask` is written in this
    /// rank's part. Both outlive the object.
    RegionalOptimizer(const GroupContext& context, const PruneOptions& options, const RegionalProblem& problem,
                      BlockWeights& weights, BlockTensor& mask, PhaseClock& clock);

    /// All rounds from the run's weights, drawing from `population` (ascending sample indices). After the mask of the
    /// first round `after_first_mask` gets its samples, ascending, when given. Returns the draws of each round. Throws
    /// NonFiniteError when weights or activations overflow. Collective.
    std::vector<std::vector<std::size_t>> run(const std::vector<std::size_t>& population, double learning_rate,
                                              const AfterFirstMask& after_first_mask);

    /// The last mask, by input norms over `samples` with the optimised weights, unless it is chosen only once; the
    /// run's weights become the masked ones, rounded to the output type. Collective.
    void finish(const std::vector<std::size_t>& samples);

    /// The present weights as statistics and errors are measured with them.
    const BlockWeights& measured_weights() { return weights_.rounded_for_measuring(); }

  private:
    InputNorms current_norms(const std::vector<std::size_t>& samples);
    /// A mask by scores of the present weights, with `norms` over the samples that the method names.
    void apply_mask(const InputNorms& norms);
    void begin_round(std::size_t round, const std::vector<std::size_t>& drawn);
    void optimise(const OptimizerSchedule& schedule, const std::vector<std::size_t>& draws);

    GroupContext context_;
    const PruneOptions& options_;
    RegionalProblem problem_;
    PhaseClock& clock_;
    OptimizedWeights weights_;
    BlockTensor& mask_;
    InputNormCollector norms_;
    OptimizerState state_;
    std::unique_ptr<StepSharing> sharing_;
    std::size_t steps_taken_ = 0;
    Tensor output_;  ///< f(x), then the gradient of the loss
};

}  // namespace espalier
