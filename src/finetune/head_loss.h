#pragma once
/// The loss of a pass and its gradient with respect to the hidden states behind the last block. Two passes over the
/// vocabulary in panels: the first gives each row's log-sum-exp, the second the gradient. Logits of a whole vocabulary
/// are kept from the first to the second where they are few; otherwise they never exist, and are computed twice.

#include "kernels/device.h"
#include "src/blocks/outer_weights.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace espalier {

/// What a pass is asked for: rows of its hidden states, and the token that follows each.
struct Predictions {
    std::vector<std::uint32_t> rows;
    std::vector<std::int32_t> targets;

    /// All tokens of samples of `sequence_length` tokens but the first of each.
    static Predictions of(std::span<const std::int32_t> ids, std::size_t sequence_length);
};

/// Sums over some predictions, in nats.
struct LossSums {
    double language_model = 0, divergence = 0;
};

/// How much of the logits exists. The result does not depend on `kept_bytes`.
struct LogitLimits {
    std::size_t panel = 4096;                         ///< tokens of the vocabulary whose logits are computed at a time
    std::size_t kept_bytes = std::size_t{256} << 20;  ///< those of a pass are rather kept than computed again
};

class HeadLoss {
  public:
    /// For passes of up to `most_predictions` predictions. `teacher` is null without one. References outlive it.
    HeadLoss(Device& device, const OuterWeights& student, const OuterWeights* teacher, const LossWeights& weights,
             std::size_t most_predictions, const LogitLimits& limits = {});

    /// `dstates` [rows, hidden] float32 <- the gradient of the sum of the losses of all predictions,
    /// for hidden states [rows, hidden]; `dgain` [1, hidden] <- that of the final norm's gain, unless it is empty.
    /// `teacher` [predictions, hidden]: the teacher's normed states that predict the same tokens, in its head's type;
    /// empty without a teacher.
    void gradient(const Predictions& predictions, TensorView states, TensorView teacher, TensorView dstates,
                  TensorView dgain);
    /// The losses alone.
    void measure(const Predictions& predictions, TensorView states, TensorView teacher);
    /// Of each prediction of the last call. Waits for the device.
    std::vector<LossSums> read() const;

  private:
    struct Sums {
        Tensor running_max, running_sum, target_logit;
        LogitSums of(std::size_t predictions) const;
    };
    Sums make_sums() const;
    void first_pass(const Predictions& predictions, const OuterWeights& model, TensorView normed, const Tensor& logits,
                    const Sums& sums);
    /// Panel after panel: the gradient of the logits, for `consume`.
    template <typename Consume>
    void second_pass(const Predictions& predictions, TensorView normed, TensorView teacher, const Consume& consume);
    TensorView begin(const Predictions& predictions, TensorView states, TensorView teacher);
    /// Of a panel of the vocabulary that begins with `first`, and the place of it.
    TensorView compute_logits(const OuterWeights& model, TensorView normed, std::size_t first,
                              const Tensor& storage) const;
    TensorView place_of_logits(std::size_t rows, std::size_t first, const Tensor& storage) const;
    /// In the second pass.
    TensorView logits_again(const OuterWeights& model, TensorView normed, std::size_t first,
                            const Tensor& storage) const;

    Device& device_;
    const OuterWeights& student_;
    const OuterWeights* teacher_;
    LossWeights weights_;
    std::size_t panel_, predictions_ = 0;
    bool keeps_logits_;
    Tensor states_, normed_, inverse_rms_, dnormed_, dstates_, logits_, rounded_, teacher_logits_;
    Sums sums_, teacher_sums_;
    Tensor divergences_;
};

}  // namespace espalier
