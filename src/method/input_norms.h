#pragma once
/// Input norms c_j of the inputs of a block's matrices: column square sums by sample (float32), added over samples in
/// float64 and in sample order, on every rank alike.

#include "src/blocks/group_context.h"
#include "src/method/prune_options.h"
#include "src/model/decoder_block.h"

#include <cstddef>
#include <utility>
#include <vector>

namespace espalier {

/// c of all inputs, on the device.
class InputNorms {
  public:
    /// `all`: [1, total input width], one input after the other.
    InputNorms(const BlockLayout& layout, Tensor all) : layout_(&layout), all_(std::move(all)) {}
    /// [1, width].
    TensorView of(LinearInput input) const;

  private:
    const BlockLayout* layout_;
    Tensor all_;
};

/// Observes forward passes sample by sample and keeps every sample's square sums, so that norms over any subset follow.
class InputNormCollector final : public LinearInputObserver {
  public:
    /// Room for the samples that this rank holds.
    explicit InputNormCollector(const GroupContext& context);

    /// The forward pass that follows is of this sample.
    void begin_sample(std::size_t sample) { sample_ = sample; }
    void observe(LinearInput input, TensorView x) override;

    /// c over `samples` (ascending; each has been observed by its holder). Throws NonFiniteError naming `block` and the
    /// input when a norm is not finite. Collective.
    InputNorms gather(const std::vector<std::size_t>& samples, InputNorm kind, std::size_t block) const;

  private:
    void refuse_nonfinite(const InputNorms& norms, std::size_t block) const;

    GroupContext context_;
    IndexRange held_;
    std::size_t sample_ = 0;
    Tensor sums_;  ///< [held samples, total input width]
};

}  // namespace espalier
