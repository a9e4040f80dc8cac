#pragma once
/// Forward and backward pass of one LLaMA-like decoder block over a sample, written once over `Device`: attention_half,
/// then mlp_half.
///
/// The residual stream (x, h, y and their gradients) is float32. What lies between two matrix products has the type of
/// the weights, which may change from pass to pass.

#include "src/model/attention_half.h"
#include "src/model/mlp_half.h"

#include <cstddef>
#include <span>
#include <vector>

namespace espalier {

/// Activations of one sample and the two passes. Reused for every sample and block of a model. Not thread-safe.
class DecoderBlock {
  public:
    /// Allocates activations for samples of up to `tokens` tokens (with longrope: on the same side of its original
    /// length) on `device`, which must outlive it, as `config` must.
    /// Weights of passes are of type `widest_weights` or of a smaller one.
    DecoderBlock(Device& device, const ModelConfig& config, std::size_t tokens, Passes passes, DType widest_weights)
        : DecoderBlock(device, config, PassShape{tokens, tokens, passes, widest_weights}) {}
    /// For passes over several samples, of different lengths, shape.tokens at most.
    DecoderBlock(Device& device, const ModelConfig& config, const PassShape& shape);
    DecoderBlock(const DecoderBlock&) = delete;  // its halves share a member
    DecoderBlock& operator=(const DecoderBlock&) = delete;

    /// What the products of passes that follow have beside the weights, which must outlive them; null: nothing.
    void set_projection_term(ProjectionTerm* term) {
        attention_.set_projection_term(term);
        mlp_.set_projection_term(term);
    }

    /// y [T, hidden] = f(x [T, hidden]). `observer` may be null. In place (y = x) is allowed when
    /// no backward pass follows.
    void forward(const BlockWeights& weights, TensorView x, TensorView y, LinearInputObserver* observer);
    /// The same for samples, and ends of samples (when no backward pass follows), as `segments` say.
    void forward(const BlockWeights& weights, TensorView x, TensorView y, std::span<const RowSegment> segments);

    /// What a backward pass needs of a forward pass over x, once more: all but the last product, unless a norm follows
    /// that one; `y` [rows, hidden] is scratch for it.
    void recompute(const BlockWeights& weights, TensorView x, TensorView y, std::span<const RowSegment> segments);

    /// y [B, hidden] of token `position` of B sequences, given x [B, hidden] and what the cache has of the tokens
    /// before; adds to it. In place (y = x) is allowed.
    void decode(const BlockWeights& weights, TensorView x, TensorView y, const KeyValueCache& cache,
                std::size_t position);

    /// The part of a forward pass that the inputs up to and including `last` need; hands each of them to `observer`. No
    /// backward pass may follow.
    void observe_inputs(const BlockWeights& weights, TensorView x, LinearInput last, LinearInputObserver& observer);

    /// Weight gradients of a loss with gradient dy [T, hidden], after the forward pass of the same sample with the same
    /// weights. Overwrites kept activations and dy. The gradient with respect to x is not computed: regional losses end
    /// here.
    void backward(const BlockWeights& weights, TensorView dy, WeightGradientSink& sink) {
        backward(weights, dy, {}, sink);
    }
    /// The same; dy becomes the gradient with respect to x [T, hidden], which holds the forward pass's input.
    void backward_to_input(const BlockWeights& weights, TensorView dy, TensorView x, WeightGradientSink& sink) {
        backward(weights, dy, x, sink);
    }

  private:
    void backward(const BlockWeights& weights, TensorView dy, TensorView x, WeightGradientSink& sink);
    /// Returns h, between the halves.
    TensorView compute_inputs(const BlockWeights& weights, TensorView x, std::span<const RowSegment> segments,
                              LinearInput last, LinearInputObserver* observer);

    BlockLayout layout_;
    PassShape shape_;
    SharedGradients shared_;
    Tensor hidden_;
    AttentionHalf attention_;
    MlpHalf mlp_;
};

}  // namespace espalier
