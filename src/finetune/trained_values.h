#pragma once
/// Everything that is trained, with what the optimiser keeps of it: a vector of values for each block and for the end
/// of the model (TrainedLayout), of which each rank steps its part. Updates of low rank and gains are whole on every
/// rank, trained matrices are not: the weights that passes read are made of all ranks' parts.

#include "kernels/device_numbers.h"
#include "src/finetune/state_store.h"
#include "src/finetune/trained_layout.h"
#include "src/finetune/training_context.h"
#include "src/model/block_weights.h"

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace espalier {

/// Of an update of low rank.
struct LowRankFactors {
    Tensor a, b;  ///< [rank, in], [out, rank]
};

/// States of whole matrices, or of all but the values of updates of low rank, that outlive a step.
std::vector<TrainedState> kept_states(const FinetuneOptions& options);

/// What a step makes of gradients.
struct TrainedUpdate {
    double learning_rate = 0;   ///< before what tensors have of their own
    double gradient_scale = 1;  ///< times the gradients is what is followed
    std::size_t number = 1;     ///< of steps, with this one
};

class TrainedValues {
  public:
    /// Moments of zero; values follow by start and start_end, and, in a run that goes on, by set_part.
    explicit TrainedValues(const TrainingContext& context);
    TrainedValues(const TrainedValues&) = delete;
    TrainedValues& operator=(const TrainedValues&) = delete;

    /// The blocks, and the end of the model behind them.
    std::size_t units() const { return units_.size(); }
    const TrainedLayout& layout(std::size_t unit) const { return unit + 1 < units_.size() ? block_ : end_; }

    /// Takes what is trained of block `block` from its weights: matrices, gains; low-rank updates begin with A drawn
    /// uniformly in +-1/sqrt(in), by counter, and B zero. Sets the rates of tensors. `scratch`: float32 memory of
    /// the largest matrix.
    void start(std::size_t block, const BlockWeights& weights, TensorView scratch);
    void start_end(TensorView final_norm);

    /// What passes read of a block: gains and matrices with low-rank updates on their place in `weights`, which hold
    /// the others; `base`, of which the matrices are, may be `weights` itself.
    void apply(std::size_t block, const BlockWeights& base, BlockWeights& weights) const;
    /// update = s B A where `weight`, the matrix of that layer, is not zero, and 0 elsewhere.
    void masked_update(std::size_t block, LinearLayer layer, TensorView weight, TensorView update) const;
    /// A and B of a matrix in the type of passes.
    LowRankFactors factors(std::size_t block, LinearLayer layer, DType dtype) const;
    /// Starts to bring what is trained of a block and lies in parts on the ranks, rounded into its place in `weights`
    /// on every rank; there once the exchanges are finished. Collective. Nothing for updates of low rank.
    std::vector<std::unique_ptr<Exchange>> start_gathering(std::size_t block, BlockWeights& weights) const;
    /// The final norm, when it is trained, on every rank. Collective.
    void gather_end(TensorView final_norm) const;
    /// A or B of a matrix of a block.
    TensorView low_rank(std::size_t block, const TrainedTensor& tensor) const;

    PartOffsets parts(std::size_t unit) const { return layout(unit).parts(ranks_); }
    /// This rank's part of a unit's gradient [1, n], for OrderedSum::finish_reduce; then take_gradient keeps it where
    /// gradients have to wait for those of all units, and adds up its squares.
    TensorView gradient_part(std::size_t unit) const { return store_.place(unit, TrainedState::gradient); }
    void take_gradient(std::size_t unit);
    /// ||gradient||^2 over all units and ranks, since the last call, added in an order that does not depend on the
    /// ranks. Collective.
    double gradient_square_sum();
    /// One step of a unit with the gradient that was taken. Collective.
    void step(std::size_t unit, const TrainedUpdate& update);

    /// Values as they are now are those that restore_best brings back. The latter is collective.
    void keep_best();
    void restore_best();

    /// States of which a checkpoint consists; for each: this rank's part of a unit.
    std::vector<TrainedState> checkpoint_states() const;
    std::vector<float> part_on_host(std::size_t unit, TrainedState state) const;
    /// Sets this rank's part; values of all ranks are complete after share().
    void set_part(std::size_t unit, TrainedState state, std::span<const float> part);
    std::uint64_t bytes_away() const { return store_.bytes_away(); }
    /// All ranks have what is whole on every rank. Collective.
    void share() const;

  private:
    struct Unit {
        Tensor whole;               ///< values, when they are whole on every rank; otherwise store_ has their parts
        std::vector<double> rates;  ///< of each tensor, relative to the step's
    };
    /// Values of trained tensors, from all ranks' parts to `place(tensor)`.
    std::vector<std::unique_ptr<Exchange>> start_gathering_parts_of(
        std::size_t unit, const std::function<TensorView(const TrainedTensor&)>& place) const;
    void share_unit(std::size_t unit) const;
    bool is_whole() const { return context_.options.low_rank(); }
    TensorView part_of(std::size_t unit) const;
    std::vector<std::size_t> sizes_of_parts() const;
    /// Of a rank's part of a unit: pieces whose squares are added up by themselves.
    std::size_t chunks_of(std::size_t unit, std::size_t rank) const;
    std::size_t chunks_before(std::size_t unit) const;

    const TrainingContext& context_;
    std::size_t ranks_;
    TrainedLayout block_, end_;
    std::vector<Unit> units_;
    StateStore store_;
    DeviceSums square_sums_;  ///< of this rank's chunks, unit after unit
};

}  // namespace espalier
