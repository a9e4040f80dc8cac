#pragma once
/// Outputs f0(X_n) of the dense block for the samples that one rank holds: what regional optimisation pulls towards.

#include "src/prune/hidden_states.h"

namespace espalier {

/// float32, or, when the block computes in 16 bits, the change that the block makes, f0(X) - X, as bfloat16: it is half
/// the memory, and its rounding (2^-9 of the change) is that of the activations which the change was computed from.
class DenseOutputs {
  public:
    /// `weights` is the type of the weights in the dense pass.
    DenseOutputs(Device& device, IndexRange samples, std::size_t tokens, std::size_t hidden, DType weights)
        : device_(device),
          samples_(samples),
          tokens_(tokens),
          kept_(device.make_tensor(weights == DType::f32 ? DType::f32 : DType::bf16, samples.size() * tokens, hidden)),
          whole_(device.make_tensor(DType::f32, tokens, hidden)) {}

    /// Where a pass leaves its output y [T, hidden], float32, before keep().
    TensorView place_of(std::size_t sample) const { return is_whole() ? kept(sample) : whole_.view(); }
    /// Keeps what place_of(sample) holds.
    void keep(std::size_t sample, TensorView x) {
        if (!is_whole()) device_.subtract(whole_, x, kept(sample));
    }
    /// f0(x) [T, hidden], float32. Valid until the next call of of() or place_of().
    TensorView of(std::size_t sample, TensorView x) const { return from_kept(kept(sample), x); }

    /// What is kept of a sample, and f0(x) from it: for a rank that got both from another.
    TensorView kept(std::size_t sample) const {
        require(samples_.contains(sample), "a sample that this rank holds");
        const std::size_t first = (sample - samples_.begin) * tokens_;
        return kept_.view().row_range(first, first + tokens_);
    }
    TensorView from_kept(TensorView kept, TensorView x) const {
        if (is_whole()) return kept;
        device_.sum(x, kept, whole_);
        return whole_;
    }
    DType kept_dtype() const { return kept_.view().dtype; }

  private:
    bool is_whole() const { return kept_dtype() == DType::f32; }

    Device& device_;
    IndexRange samples_;
    std::size_t tokens_;
    Tensor kept_;
    Tensor whole_;  ///< one sample
};

}  // namespace espalier
