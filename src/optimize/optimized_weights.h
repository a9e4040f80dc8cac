#pragma once
/// The weights that regional optimisation moves: float32 masters of this rank's part, and the weights that its passes
/// read, which are the masters themselves when the passes compute in float32. The run's own weights, in the type in
/// which they are written, are where it starts and ends.

#include "src/blocks/group_context.h"
#include "src/blocks/weight_partition.h"
#include "src/model/block_weights.h"

#include <memory>
#include <optional>

namespace espalier {

class OptimizedWeights {
  public:
    /// `of_passes`: float32, or the 16-bit type in which forward and backward passes compute. `measures_rounded`:
    /// statistics and errors need not be measured in float32, but may be with weights rounded like the run's. `run`
    /// outlives it.
    OptimizedWeights(const GroupContext& context, const WeightPartition& partition, DType of_passes,
                     bool measures_rounded, BlockWeights& run);

    /// Starts (again) from the run's weights.
    void load();
    /// What forward and backward passes read.
    const BlockWeights& of_passes() const { return own_ ? *own_ : run_; }
    /// The present weights for statistics and errors: those of the passes, or the run's, after rounding the former into
    /// them. 16-bit products are twice as fast as TF32, and the rounded weights are the ones that will be used.
    const BlockWeights& rounded_for_measuring();
    /// float32 rows of this rank's part.
    TensorView master(const RowSlice& slice) const;
    /// The same rows in the weights of the passes; empty when those are the masters.
    TensorView rounded(const RowSlice& slice) const;
    /// Brings this rank's masters into the weights of the passes on every rank. Collective.
    void share();
    /// The same for the rows of one matrix that are there in both already (`rounded`), without waiting.
    std::unique_ptr<Exchange> start_sharing(LinearLayer layer) const;
    /// The run's weights <- the masters, rounded to `output`, on every rank. Collective.
    void store(DType output);

  private:
    bool masters_are_apart() const { return of_passes().dtype() != DType::f32; }
    std::size_t columns_of(const RowSlice& slice) const { return context_.layout.matrix(slice.layer).columns; }

    GroupContext context_;
    const WeightPartition& partition_;
    bool measures_rounded_;
    BlockWeights& run_;
    std::optional<BlockWeights> own_;  ///< weights of the passes, when the run's have another type
    PartTensor masters_;               ///< when neither is float32
};

}  // namespace espalier
