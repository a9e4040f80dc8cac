#pragma once
/// The weights that regional optimisation moves: float32 masters of this rank's part, and the weights that its passes
/// read, which are the masters themselves when the passes compute in float32. The run's own weights, in the type in
/// which they are written, stay dense until `store`, unless they serve as one of the two.

#include "src/model/block_weights.h"
#include "src/prune/group_context.h"
#include "src/prune/weight_partition.h"

#include <memory>
#include <optional>

namespace espalier {

class OptimizedWeights {
  public:
    /// `of_passes`: float32, or the 16-bit type in which forward and backward passes compute. `run` outlives it.
    OptimizedWeights(const GroupContext& context, const WeightPartition& partition, DType of_passes, BlockWeights& run);

    /// Starts (again) from the run's weights.
    void load();
    /// What forward and backward passes read.
    const BlockWeights& of_passes() const { return own_ ? *own_ : run_; }
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
    BlockWeights& run_;
    std::optional<BlockWeights> own_;  ///< weights of the passes, when the run's have another type
    PartTensor masters_;               ///< when neither is float32
};

}  // namespace espalier
