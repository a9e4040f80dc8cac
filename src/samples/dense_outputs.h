#pragma once
/// Outputs f0(X_n) of the dense block for the samples that one rank holds: what regional optimisation pulls towards.

#include "src/samples/sample_store.h"

#include <array>
#include <cstdint>

namespace espalier {

/// float32, or, when the block computes in 16 bits, the change that the block makes, f0(X) - X, as bfloat16: it is half
/// the memory, and its rounding (2^-9 of the change) is that of the activations which the change was computed from.
class DenseOutputs {
  public:
    /// `weights` is the type of the weights in the dense pass.
    DenseOutputs(Device& device, IndexRange samples, std::size_t tokens, std::size_t hidden, DType weights,
                 StoragePlace place = StoragePlace::device);

    /// Where a pass leaves its output y [T, hidden], float32, before keep().
    TensorView place_of(std::size_t sample) const {
        return is_whole_on_device() ? kept_.sample(sample) : whole_.view();
    }
    /// Keeps what place_of(sample) holds; x is the sample's input.
    void keep(std::size_t sample, TensorView x);

    /// What is kept of the samples, for SampleReader and for other ranks.
    const SampleStore& kept() const { return kept_; }
    /// f0(x) [T, hidden], float32, from what is kept of it, on the device. Valid until the next call.
    TensorView restored(TensorView kept, TensorView x) const;

  private:
    bool is_whole() const { return kept_.dtype() == DType::f32; }
    bool is_whole_on_device() const { return is_whole() && !kept_.on_host(); }

    Device& device_;
    SampleStore kept_;
    Tensor whole_;                   ///< one sample
    std::array<Tensor, 2> leaving_;  ///< on their way to host memory
    std::array<std::uint64_t, 2> copies_{};
    std::size_t turn_ = 0;
};

}  // namespace espalier
