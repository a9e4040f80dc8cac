#pragma once
/// Prunes one decoder block after the other with any method. Reads like docs/method.md; the steps are in the files it
/// names.

#include "src/blocks/group_context.h"
#include "src/blocks/phase_clock.h"
#include "src/method/block_masker.h"
#include "src/method/prune_options.h"
#include "src/optimize/learning_rate_search.h"
#include "src/prune/block_report.h"
#include "src/samples/hidden_states.h"

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace espalier {

/// The block as it is to be written, with what was measured. Mask: uint8, 1 = kept, complete on every rank.
struct PrunedBlock {
    BlockReport report;
    BlockTensor mask;
    std::vector<std::string> sentences;  ///< for the log
};

class BlockPruner {
  public:
    /// Called on every rank of the group with the result of the learning-rate search, right after it.
    using OnSearch = std::function<void(const LearningRateChoice&)>;

    BlockPruner(const GroupContext& context, const PruneOptions& options, DecoderBlock& decoder, PhaseClock& clock);

    /// The base learning rate, once it is known otherwise than by this object's search.
    void set_learning_rate(double rate) { learning_rate_ = rate; }
    void on_search(OnSearch callback) { on_search_ = std::move(callback); }
    /// Called now and then while a block is worked on, for bookkeeping that should not wait for its end.
    void on_idle(std::function<void()> callback) { on_idle_ = std::move(callback); }

    /// The hidden states that enter the first block of this object's, dense and pruned ones alike.
    void begin(const HiddenStates& x);
    /// Passes the dense hidden states, when the run keeps them, through a block's dense weights: for blocks that are
    /// not pruned (any more). Local.
    void propagate_dense(const BlockWeights& weights);

    /// Prunes `weights` (dense, replaced by the values written) and replaces the hidden states `x` by the inputs of the
    /// next block. Throws NonFiniteError, InputError. Collective over the group.
    PrunedBlock prune(std::size_t block, BlockWeights& weights, HiddenStates& x);

    /// Passes `x` through a block that is not pruned (any more). Local.
    void propagate(const BlockWeights& weights, HiddenStates& x);

  private:
    struct DensePass;
    DensePass run_dense_pass(std::size_t block, const BlockWeights& weights, const HiddenStates& x);
    /// Chooses the mask by scores, on all ranks. `weights` gives the rows that are scored, which become the masked
    /// ones.
    void choose_mask(const DensePass& dense, const BlockMasker& masker, const BlockMasker::RowsOf& weights,
                     PrunedBlock& result);
    void prune_once(const DensePass& dense, BlockWeights& weights, PrunedBlock& result);
    void compensate(const DensePass& dense, const HiddenStates& x, BlockWeights& weights, PrunedBlock& result);
    void optimise_regionally(const DensePass& dense, const HiddenStates& x, BlockWeights& weights, PrunedBlock& result);
    void reconstruct(const DensePass& dense, const HiddenStates& x, BlockWeights& weights, PrunedBlock& result);
    void finish(const DensePass& dense, const BlockWeights& weights, HiddenStates& x, BlockReport& report);
    /// Sum over `samples` (ascending) of what this rank's samples have each; `mine` holds a value for all of those.
    double sum_over(const std::vector<std::size_t>& samples, const std::vector<double>& mine) const;
    void measure_masks(const BlockTensor& first_mask, PrunedBlock& result) const;
    void add_group_totals(double flops, BlockReport& report) const;

    GroupContext context_;
    const PruneOptions& options_;
    DecoderBlock& decoder_;
    PhaseClock& clock_;
    std::vector<std::size_t> all_samples_;
    std::optional<double> learning_rate_;
    std::optional<HiddenStates> dense_x_;  ///< the dense model's hidden states, when they are the targets' inputs
    OnSearch on_search_;
    std::function<void()> on_idle_ = [] {};
};

}  // namespace espalier
