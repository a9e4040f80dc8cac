#pragma once
/// Score and mask of a block: every rank scores and masks the rows of its part; gathering brings them to all ranks.

#include "kernels/device_numbers.h"
#include "src/blocks/group_context.h"
#include "src/blocks/weight_partition.h"
#include "src/method/input_norms.h"
#include "src/method/prune_options.h"
#include "src/model/block_weights.h"

#include <cstddef>
#include <functional>

namespace espalier {

class BlockMasker {
  public:
    /// `gradient` is this rank's part of G, or empty for methods without it; kept by reference.
    BlockMasker(const GroupContext& context, const PruneOptions& options, const WeightPartition& partition,
                const PartTensor& gradient);

    /// Rows of this rank's part of the weights that are scored.
    using RowsOf = std::function<TensorView(const RowSlice&)>;

    /// weights <- mask(score(weights, norms)) * weights in this rank's part, where `mask` [uint8] is set, too. Throws
    /// NonFiniteError naming block and matrix. Collective.
    void mask_part(const InputNorms& norms, std::size_t block, const RowsOf& weights, BlockTensor& mask) const;

    /// Completes `mask` from all ranks' parts. Collective.
    void gather_mask(BlockTensor& mask) const;
    /// Completes `weights` from all ranks' parts. Collective.
    void gather_weights(BlockWeights& weights) const;

    const WeightPartition& partition() const { return partition_; }

  private:
    ScoreTerms terms_for(const InputNorms& norms, const RowSlice& slice) const;

    GroupContext context_;
    const PruneOptions& options_;
    const WeightPartition& partition_;
    const PartTensor& gradient_;
};

/// Throws NonFiniteError on every rank when any rank counted unusable scores (a counter for each matrix). Collective.
void refuse_unusable_scores(const GroupContext& context, const DeviceCounters& unusable, std::size_t block);

}  // namespace espalier
