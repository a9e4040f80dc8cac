#pragma once
/// The second half of a decoder block: y = h + down(silu(gate) * up) of rms_norm(h), or, with norms after the halves,
/// y = h + rms_norm(down(…)) of h itself.

#include "src/model/block_half.h"

namespace espalier {

class MlpHalf : private BlockHalf {
  public:
    using BlockHalf::set_projection_term;

    MlpHalf(Device& device, const ModelConfig& config, const MlpTensors& tensors, const PassShape& shape,
            const SharedGradients& shared);

    /// Its activations from h; hands the inputs of its layers to `observer`, when there is one, and stops behind the
    /// input `last`.
    void compute_inputs(const BlockWeights& weights, TensorView h, LinearInput last, LinearInputObserver* observer);
    /// y from h, after compute_inputs of the whole half. y may not be h.
    void finish(const BlockWeights& weights, TensorView h, TensorView y);
    /// Weight gradients, given dy, which becomes the gradient with respect to h, the input of the forward pass before.
    void backward(const BlockWeights& weights, TensorView dy, TensorView h, WeightGradientSink& sink);

  private:
    MlpTensors tensors_;
    // Of the forward pass
    Tensor normed_, gate_, up_, activation_, inverse_rms_;
    Tensor output_, inverse_rms_output_;  // with a norm of the output
    // Of the backward pass; gate and up become their gradients
    Tensor dactivation_;
};

}  // namespace espalier
