#pragma once
/// How likely tokens are, from logits that arrive in panels of the vocabulary.

#include "kernels/device.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace espalier {

/// Of one prediction.
struct TokenLoss {
    double loss = 0;           ///< -log of the token's probability
    bool most_likely = false;  ///< no other token has a larger logit
};

class CrossEntropies {
  public:
    CrossEntropies(Device& device, std::size_t predictions);

    /// Logits [targets.size(), panel] of the tokens from first_token on, for the predictions from `first` on. All
    /// panels of the vocabulary, in order, and each once.
    void add(std::size_t first, TensorView logits, std::size_t first_token, std::span<const std::int32_t> targets);
    /// Of all predictions, when all panels are in.
    std::vector<TokenLoss> read() const;

  private:
    Tensor make(std::size_t predictions) const {
        return device_.make_tensor(DType::f32, 1, predictions, "cross-entropies");
    }

    Device& device_;
    Tensor running_max_, running_sum_, target_logit_;
};

}  // namespace espalier
