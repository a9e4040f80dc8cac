#include "src/cli/presets.h"

#include "src/base/name_table.h"

#include <algorithm>
#include <string>
#include <vector>

namespace espalier {

namespace {

struct PresetValue {
    std::string option, value;
};

enum class Preset { fast, paper, best };

constexpr NameTable<Preset, 3> presets = {{{{Preset::fast, "fast"}, {Preset::paper, "paper"}, {Preset::best, "best"}}}};

/// So many samples in all that each of `tokens` tokens is there `goal / tokens` times, from `least` to `most` of them
/// beside itself.
std::string continuations_for(std::size_t goal, std::size_t tokens, std::size_t least, std::size_t most) {
    return std::to_string(std::clamp(std::max<std::size_t>(1, goal / tokens) - 1, least, most));
}

/// As docs/method.md has it, from what docs/quality.md measures: few tokens are what a method suffers from most, and
/// those of the model's own are worth nearly as much as any; the more there are, the fewer have to be added. The last
/// stage always has some that no block was reconstructed with, to be judged by.
std::vector<PresetValue> values_of_best(const RequestedTokens& asked) {
    constexpr std::size_t reconstructed_tokens = 16384, trained_tokens = 24576;
    const std::size_t tokens = asked.tokens.samples * asked.tokens.sequence_length;
    const bool is_drawn = asked.given == 0;
    constexpr std::size_t step_tokens = 512, least_of_step = 4;
    return {{"method", "reconstruct"},
            {"continuations", continuations_for(reconstructed_tokens, tokens, 0, 3)},
            {"epochs", "2"},
            {"finetune-continuations", continuations_for(trained_tokens, tokens, 1, 7)},
            {"finetune-epochs", is_drawn ? "3" : "1"},
            {"finetune-batch", std::to_string(std::max(least_of_step, step_tokens / asked.tokens.sequence_length))},
            {"finetune-learning-rate", is_drawn ? "2e-3" : "1e-3"}};
}

std::vector<PresetValue> values_of(Preset preset, const RequestedTokens& asked) {
    switch (preset) {
        case Preset::fast:
            return {{"method", "sparsegpt"}};
        case Preset::paper:
            return {{"method", "wanda++"},
                    {"alpha", "100"},
                    {"ro-rounds", "5"},
                    {"ro-learning-rate", "3e-7"},
                    {"ro-batch", "1"}};
        case Preset::best:
            return values_of_best(asked);
    }
    return {};
}

}  // namespace

OptionSpec preset_option_spec() {
    return {"preset",
            "fast (sparsegpt), paper (wanda++ as published) or best (reconstruct, then fine-tuning of the whole model, "
            "with text of the model's own): sets what is not given otherwise",
            {}};
}

void apply_preset(OptionSet& options, const RequestedTokens& asked) {
    if (!options.has("preset")) return;
    const std::string name = options.text("preset");
    for (const auto& [option, value] : values_of(presets.value_of(name, "--preset"), asked))
        options.set_preset(option, value, name);
}

}  // namespace espalier
