#pragma once
/// Forward and backward pass of one LLaMA-family decoder block over a sample, written once over `Device`:
///   h = x + o(attention(rope(q), rope(k), v))  on rms_norm(x);   y = h + down(silu(gate) * up)  on rms_norm(h).
///
/// The residual stream (x, h, y and their gradients) is float32. What lies between two matrix products has the type of
/// the weights, which may change from pass to pass.

#include "kernels/device.h"
#include "src/model/block_layout.h"
#include "src/model/block_weights.h"
#include "src/model/model_config.h"

#include <cstddef>
#include <initializer_list>

namespace espalier {

/// Sees the input [T, in] of each linear layer during a forward pass, once for each of the four inputs.
class LinearInputObserver {
  public:
    virtual ~LinearInputObserver() = default;
    virtual void observe(LinearInput input, TensorView x) = 0;
};

/// Takes the weight gradients of a backward pass as they arise; none is stored by the block.
class WeightGradientSink {
  public:
    virtual ~WeightGradientSink() = default;
    /// Rows [row_begin, row_begin + panel.rows) of the gradient of `layer`. May be called concurrently for different
    /// panels. The weight of `layer` is no longer needed by this backward pass and may be changed.
    virtual void consume(LinearLayer layer, std::size_t row_begin, TensorView panel) = 0;
    /// All panels of `layer` have been consumed.
    virtual void finished(LinearLayer /*layer*/) {}
};

/// Which passes a DecoderBlock is made for; it decides how many activations are kept.
enum class Passes { forward_only, forward_and_backward };

/// Activations of one sample and the two passes. Reused for every sample and block of a model. Not thread-safe.
class DecoderBlock {
  public:
    /// Allocates activations for samples of `tokens` tokens on `device`, which must outlive it. Weights of passes are
    /// of type `widest_weights` or of a smaller one. Forward-only passes may take `samples` samples at once, whose rows
    /// follow each other: short samples make products of few rows, which take longer for each row.
    DecoderBlock(Device& device, const ModelConfig& config, std::size_t tokens, Passes passes, DType widest_weights,
                 std::size_t samples = 1);

    /// y [samples * T, hidden] = f(x [samples * T, hidden]). `observer` may be null. In place (y = x) is allowed when
    /// no backward pass follows.
    void forward(const BlockWeights& weights, TensorView x, TensorView y, LinearInputObserver* observer);

    /// The part of a forward pass that the inputs up to and including `last` need; hands each of them to `observer`. No
    /// backward pass may follow.
    void observe_inputs(const BlockWeights& weights, TensorView x, LinearInput last, LinearInputObserver& observer);

    /// Weight gradients of a loss with gradient dy [T, hidden], after the forward pass of the same sample with the same
    /// weights. Overwrites kept activations and dy. The gradient with respect to x is not computed: regional losses end
    /// here.
    void backward(const BlockWeights& weights, TensorView dy, WeightGradientSink& sink);

  private:
    struct Activations {
        Tensor normed, q, k, v, attention_out, log_sum_exp;  // attention half
        Tensor hidden, normed_hidden, gate, up, activation;  // MLP half
        Tensor inverse_rms, inverse_rms_hidden;              // kept for the norms' backward passes
        Tensor q_projected, k_projected, inverse_rms_q, inverse_rms_k;
    };
    struct Gradients {
        Tensor residual;  // of the residual stream, in the type of the weights
        Tensor normed;    // float32: two products are added in it
        Tensor activation, attention_out, q, k, v;
    };

    /// A kept tensor in the type of the present pass.
    TensorView now(const Tensor& tensor) const { return tensor.view().as(dtype_); }
    /// A float32 gradient in the type of the present pass.
    TensorView as_factor(TensorView gradient);
    void project(const BlockWeights& weights, LinearLayer layer, BlockVector bias, TensorView x, TensorView y);
    void normalise_heads(const BlockWeights& weights, BlockVector norm, TensorView projected, TensorView inverse_rms,
                         TensorView heads);
    void normalise_heads_backward(const BlockWeights& weights, BlockVector norm, TensorView projected,
                                  TensorView inverse_rms, TensorView gradient);
    void attend(const BlockWeights& weights);
    void attend_backward(const BlockWeights& weights);
    /// y = residual + the projection of x.
    void add_projection(const BlockWeights& weights, LinearLayer layer, BlockVector bias, TensorView x,
                        TensorView residual, TensorView y);
    void compute_inputs(const BlockWeights& weights, TensorView x, LinearInput last, LinearInputObserver* observer);
    struct LayerGradient {
        LinearLayer layer;
        TensorView dy;
    };
    void emit(WeightGradientSink& sink, TensorView x, std::initializer_list<LayerGradient> gradients);

    Device& device_;
    AttentionShape shape_;
    std::size_t tokens_, samples_;
    float epsilon_;
    bool query_key_norm_;
    bool keeps_activations_;
    DType dtype_ = DType::f32;  ///< of the weights of the present pass
    Tensor cosine_, sine_;
    Activations kept_;
    Gradients gradients_;
};

}  // namespace espalier
