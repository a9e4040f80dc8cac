#include "src/finetune/finetune_options.h"

#include "src/base/error.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

namespace espalier {

namespace {

constexpr std::array<std::pair<TrainedPart, std::string_view>, 3> trained_parts = {
    {{TrainedPart::masked_lora, "masked-lora"}, {TrainedPart::lora, "lora"}, {TrainedPart::masked, "masked"}}};
constexpr std::array<std::pair<FinetuneLoss, std::string_view>, 3> losses = {
    {{FinetuneLoss::lm, "lm"}, {FinetuneLoss::kl, "kl"}, {FinetuneLoss::mix, "mix"}}};

}  // namespace

std::string_view name_of(TrainedPart part) {
    return trained_parts[static_cast<std::size_t>(part)].second;
}

TrainedPart trained_part_from_name(std::string_view name) {
    for (const auto& [part, known] : trained_parts) {
        if (known == name) return part;
    }
    throw InputError("--train '" + std::string(name) + "' is not one of masked-lora, lora, masked");
}

std::string_view name_of(FinetuneLoss loss) {
    return losses[static_cast<std::size_t>(loss)].second;
}

FinetuneLoss finetune_loss_from_name(std::string_view name) {
    for (const auto& [loss, known] : losses) {
        if (known == name) return loss;
    }
    throw InputError("--loss '" + std::string(name) + "' is not one of lm, kl, mix");
}

bool FinetuneOptions::is_target(const MatrixShape& matrix) const {
    return targets.empty() || std::ranges::find(targets, short_name(matrix.name)) != targets.end();
}

LossWeights FinetuneOptions::loss_weights() const {
    switch (loss) {
        case FinetuneLoss::lm:
            return {1, 0};
        case FinetuneLoss::kl:
            return {0, 1};
        case FinetuneLoss::mix:
            return {0.33F, 0.67F};
    }
    throw BugError("internal error: a loss");
}

double FinetuneOptions::learning_rate_of(std::size_t step) const {
    const auto total = static_cast<double>(steps), done = static_cast<double>(step);
    const double warm = std::ceil(warm_up * total);
    if (done < warm) return learning_rate * (done + 1) / warm;
    return learning_rate * (total - done) / std::max(1.0, total - warm);
}

AdamW FinetuneOptions::rule() const {
    AdamW rule;
    rule.weight_decay = static_cast<float>(weight_decay);
    return rule;
}

Json FinetuneOptions::deciding_values(const std::string& arithmetic) const {
    Json names = Json::array();
    for (const std::string& target : targets) names.push_back(target);
    Json values = {{"train", name_of(train)},
                   {"targets", names},
                   {"train_norms", train_norms},
                   {"loss", name_of(loss)},
                   {"learning_rate", learning_rate},
                   {"warm_up", warm_up},
                   {"weight_decay", weight_decay},
                   {"gradient_norm", gradient_norm},
                   {"batch", batch},
                   {"steps", steps},
                   {"held_out", held_out},
                   {"evaluate_steps", evaluate_steps},
                   {"patience", patience},
                   {"seed", seed},
                   {"samples", samples},
                   {"sequence_length", sequence_length},
                   {"output_dtype", name_of(output_dtype)},
                   {"arithmetic", arithmetic}};
    if (low_rank()) {
        values["rank"] = rank;
        values["alpha"] = alpha;
        if (dropout > 0) values["dropout"] = dropout;
    }
    return values;
}

}  // namespace espalier
