#pragma once
/// float32 hidden states [T, hidden] of the calibration samples that one rank holds.

#include "kernels/device.h"
#include "mpi/topology.h"

#include <cstddef>

namespace espalier {

class HiddenStates {
  public:
    HiddenStates(Device& device, IndexRange samples, std::size_t tokens, std::size_t hidden)
        : samples_(samples),
          tokens_(tokens),
          storage_(device.make_tensor(DType::f32, samples.size() * tokens, hidden)) {}

    IndexRange samples() const { return samples_; }
    /// Sample by its index among all samples.
    TensorView sample(std::size_t index) const {
        require(samples_.contains(index), "a sample that this rank holds");
        const std::size_t first = (index - samples_.begin) * tokens_;
        return storage_.view().row_range(first, first + tokens_);
    }
    TensorView all() const { return storage_.view(); }

  private:
    IndexRange samples_;
    std::size_t tokens_;
    Tensor storage_;
};

}  // namespace espalier
