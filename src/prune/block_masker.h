#pragma once
/// Score and mask of a block: every rank scores the rows of its part, then the masked weights are gathered.

#include "src/model/block_weights.h"
#include "src/prune/group_context.h"
#include "src/prune/input_norms.h"
#include "src/prune/prune_options.h"
#include "src/prune/weight_partition.h"

#include <cstddef>

namespace espalier {

class BlockMasker {
  public:
    /// `gradient` is this rank's part of G, or empty for methods without it; kept by reference.
    BlockMasker(const GroupContext& context, const PruneOptions& options, const WeightPartition& partition,
                const PartTensor& gradient);

    /// weights <- mask(score(weights, norms)) * weights, on all ranks; `mask` [uint8] is set in this rank's part.
    /// Throws NonFiniteError naming block and matrix. Collective.
    void apply(const InputNorms& norms, std::size_t block, BlockWeights& weights, BlockTensor& mask) const;

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

/// Throws NonFiniteError on every rank when any rank counted unusable scores. Collective.
void refuse_unusable_scores(const GroupContext& context, const std::array<std::size_t, linear_layers>& unusable,
                            std::size_t block);

}  // namespace espalier
