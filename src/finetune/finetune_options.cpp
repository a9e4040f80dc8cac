#include "src/finetune/finetune_options.h"

#include "src/base/error.h"
#include "src/base/name_table.h"

#include <algorithm>

namespace espalier {

namespace {

constexpr NameTable<TrainedPart, 3> trained_parts = {
    {{{TrainedPart::masked_lora, "masked-lora"}, {TrainedPart::lora, "lora"}, {TrainedPart::masked, "masked"}}}};
constexpr NameTable<FinetuneLoss, 3> losses = {
    {{{FinetuneLoss::lm, "lm"}, {FinetuneLoss::kl, "kl"}, {FinetuneLoss::mix, "mix"}}}};

}  // namespace

std::string_view name_of(TrainedPart part) {
    return trained_parts.name_of(part);
}

TrainedPart trained_part_from_name(std::string_view name) {
    return trained_parts.value_of(name, "--train");
}

std::string_view name_of(FinetuneLoss loss) {
    return losses.name_of(loss);
}

FinetuneLoss finetune_loss_from_name(std::string_view name) {
    return losses.value_of(name, "--loss");
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
    return learning_rate * share_of_rate(step, steps, warm_up);
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
