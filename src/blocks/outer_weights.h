#pragma once
/// Embedding, final norm and head on a device, the same on every rank for a whole run: each step asks for all of them.

#include "kernels/device.h"
#include "mpi/communicator.h"
#include "src/weights/model_source.h"

#include <cstdint>
#include <span>

namespace espalier {

class OuterWeights {
  public:
    /// What of them is needed: a teacher's embedding is, until its hidden states are known, then its norm, and its head
    /// unless it is the student's.
    enum class Parts { all, embedding, norm, norm_and_head };

    /// Reads them. References outlive it. Collective.
    OuterWeights(Device& device, Communicator& group, const ModelSource& source, Parts parts);

    /// x [ids.size(), hidden], float32 <- rows of the embedding.
    void embed(std::span<const std::int32_t> ids, TensorView x) const;
    /// normed, of the head's type, and inverse_rms [1, rows] <- the final norm of x [rows, hidden].
    void norm(TensorView x, TensorView normed, TensorView inverse_rms) const;
    /// [vocabulary, hidden] of the compute type.
    TensorView head() const { return head_.empty() ? embedding_.view() : head_.view(); }
    TensorView final_norm() const { return final_norm_; }

  private:
    Device& device_;
    float epsilon_;
    Tensor embedding_, final_norm_;
    Tensor head_;  ///< empty when it is the embedding, in the same type
};

}  // namespace espalier
