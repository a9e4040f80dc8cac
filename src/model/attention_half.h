#pragma once
/// The first half of a decoder block: h = x + o(attention(rope(q), rope(k), v)) of rms_norm(x), or, with norms after
/// the halves, h = x + rms_norm(o(…)) of x itself. Queries and keys may have norms of their own.

#include "src/model/block_half.h"
#include "src/model/key_value_cache.h"

#include <memory>
#include <span>
#include <vector>

namespace espalier {

class AttentionHalf : private BlockHalf {
  public:
    using BlockHalf::set_projection_term;

    AttentionHalf(Device& device, const ModelConfig& config, const AttentionTensors& tensors, const PassShape& shape,
                  const SharedGradients& shared);

    /// h [rows, hidden] from x; hands the inputs of its layers to `observer`, when there is one. Stops behind the input
    /// `last` and then returns false.
    bool forward(const BlockWeights& weights, TensorView x, TensorView h, std::span<const RowSegment> segments,
                 LinearInput last, LinearInputObserver* observer);
    /// The same for token `position` of as many sequences as x has rows, which adds to the cache. No backward pass.
    void decode(const BlockWeights& weights, TensorView x, TensorView h, const KeyValueCache& cache,
                std::size_t position);
    /// Weight gradients, given dh, which becomes the gradient with respect to x, the input of the forward pass before,
    /// when `x` is not empty.
    void backward(const BlockWeights& weights, TensorView dh, TensorView x, WeightGradientSink& sink);

  private:
    struct RotaryTable {
        std::shared_ptr<const RopeConfig> rope;
        Tensor cosine, sine;
    };
    /// Null where a block does not rotate.
    const RotaryTable* table_of(const BlockWeights& weights) const;
    void norm_input(const BlockWeights& weights, TensorView x);
    /// q, k and v of all rows, with their norms, before they are rotated.
    void project_heads(const BlockWeights& weights);
    void attend(const BlockWeights& weights, std::span<const RowSegment> segments);
    void attend_to_cache(const BlockWeights& weights, const KeyValueCache& cache, std::size_t position);
    /// h = x + what the heads' output becomes.
    void add_output(const BlockWeights& weights, TensorView x, TensorView h);
    /// Attention of rows [begin, begin + segment.rows) to themselves and to the rows that they follow.
    void attend_behind_prefix(std::size_t begin, const RowSegment& segment);
    void refuse_other_side_of_longrope(const RopeConfig& rope, std::size_t tokens) const;
    /// Of the rows [begin, begin + tokens), which are one sample.
    TensorView log_sum_exp_of(std::size_t begin, std::size_t tokens) const;
    void attend_backward(const BlockWeights& weights, WeightGradientSink& sink);
    /// The heads of a projection [rows, heads * size], one a row where each has a norm by itself.
    TensorView by_norm(TensorView projected) const;
    void input_gradient(const BlockWeights& weights, TensorView dh, TensorView x, WeightGradientSink& sink);

    const ModelConfig& config_;
    AttentionTensors tensors_;
    AttentionShape heads_;
    HeadNorm head_norm_;
    std::vector<RotaryTable> tables_;
    // Of the forward pass
    std::vector<RowSegment> segments_;  ///< kept for the backward pass
    Tensor normed_, q_, k_, v_, heads_output_, log_sum_exp_, inverse_rms_;
    Tensor q_projected_, k_projected_, inverse_rms_q_, inverse_rms_k_;  // with norms of queries and keys
    Tensor output_, inverse_rms_output_;                                // with a norm of the output
    Tensor joined_q_, joined_k_, joined_v_, joined_output_;             // of a sample, when passes have prefixes
    // Of the backward pass
    Tensor dheads_output_, dq_, dk_, dv_;
};

}  // namespace espalier
