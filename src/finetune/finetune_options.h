#pragma once
/// Everything that decides what a fine-tuning run does: one plain struct, filled by the command line, validated once,
/// written whole into the manifest.

#include "kernels/device.h"
#include "kernels/optimizer_step.h"
#include "src/base/dtype.h"
#include "src/base/json.h"
#include "src/model/block_layout.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace espalier {

/// What is trained of the target matrices: an update of low rank under the mask, W + s (B A) * M (Zimmer et al. 2023,
/// PERP), one without it, W + s B A (Hu et al. 2021, LoRA), or all weights that are not zero.
enum class TrainedPart { masked_lora, lora, masked };
std::string_view name_of(TrainedPart part);
/// Throws InputError.
TrainedPart trained_part_from_name(std::string_view name);

/// Towards what: the text's own next tokens, the dense model's distribution, or both.
enum class FinetuneLoss { lm, kl, mix };
std::string_view name_of(FinetuneLoss loss);
/// Throws InputError.
FinetuneLoss finetune_loss_from_name(std::string_view name);

struct FinetuneOptions {
    std::filesystem::path model, data, output;
    std::optional<std::filesystem::path> teacher;  ///< the dense model, for losses that ask it
    TrainedPart train = TrainedPart::masked_lora;
    std::size_t rank = 16;
    double alpha = 32;
    double dropout = 0;                ///< probability with which an input of an update is dropped in a step
    std::vector<std::string> targets;  ///< "q_proj", …; all matrices of a block when empty
    bool train_norms = false;
    FinetuneLoss loss = FinetuneLoss::lm;
    double learning_rate = 5e-4;  ///< for `masked`: times the root mean square of the kept weights of each tensor
    double warm_up = 0.1;         ///< share of the steps in which the rate grows; then it falls to zero in a line
    double weight_decay = 0;
    double gradient_norm = 1;  ///< of all trained values together, at most; 0: without a bound
    std::size_t batch = 8;     ///< samples of a step
    std::size_t steps = 0;
    std::size_t held_out = 0;          ///< samples that are never trained on: the last ones of the file
    std::size_t evaluate_steps = 0;    ///< steps between two looks at the held-out samples
    std::size_t patience = 0;          ///< looks without a better one that end the run; 0: never
    std::size_t checkpoint_steps = 0;  ///< between two checkpoints; 0: one every ten minutes
    std::uint64_t seed = 0;
    std::size_t samples = 0;  ///< those held out included
    std::size_t sequence_length = 0;
    DType output_dtype = DType::f32;  ///< of the merged weights
    bool fresh = false;

    bool low_rank() const { return train != TrainedPart::masked; }
    /// Zeros of the target matrices stay zero.
    bool keeps_zeros() const { return train != TrainedPart::lora; }
    /// s, which an update B A is multiplied by.
    double scale() const { return alpha / static_cast<double>(rank); }
    bool is_target(const MatrixShape& matrix) const;
    /// Gradients of all units are there before any is followed.
    bool bounds_gradients() const { return gradient_norm > 0; }
    bool asks_teacher() const { return loss != FinetuneLoss::lm; }
    LossWeights loss_weights() const;
    std::size_t training_samples() const { return samples - held_out; }
    /// Of step `step` of steps 0 …: linear warm-up, then linear decay to 0.
    double learning_rate_of(std::size_t step) const;
    AdamW rule() const;
    /// The values that decide the result, for the manifest; `arithmetic`: Device::arithmetic.
    Json deciding_values(const std::string& arithmetic) const;
};

}  // namespace espalier
