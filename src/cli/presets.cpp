#include "src/cli/presets.h"

#include "io/drawn_tokens.h"
#include "src/base/name_table.h"

#include <string>
#include <vector>

namespace espalier {

namespace {

struct PresetValue {
    const char *option, *value;
};

enum class Preset { fast, paper, best };

constexpr NameTable<Preset, 3> presets = {{{{Preset::fast, "fast"}, {Preset::paper, "paper"}, {Preset::best, "best"}}}};

/// Measured in docs/quality.md. `has_text`: calibration is with a text, which the model can go on from, and not with
/// tokens of its own, of which there can be as many as are wanted.
std::vector<PresetValue> values_of(Preset preset, bool has_text) {
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
            return {{"method", "reconstruct"},
                    {"continuations", has_text ? "3" : "0"},
                    {"epochs", has_text ? "2" : "3"},
                    {"finetune-continuations", "1"},
                    {"finetune-epochs", has_text ? "1" : "2"}};
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

void apply_preset(OptionSet& options) {
    if (!options.has("preset")) return;
    const std::string name = options.text("preset");
    const bool has_text = !options.has("calibration") || !names_drawn_tokens(options.text("calibration"));
    for (const auto& [option, value] : values_of(presets.value_of(name, "--preset"), has_text))
        options.set_preset(option, value, name);
}

}  // namespace espalier
