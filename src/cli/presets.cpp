#include "src/cli/presets.h"

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

/// Measured in docs/quality.md.
std::vector<PresetValue> values_of(Preset preset) {
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
                    {"continuations", "3"},
                    {"epochs", "5"},
                    {"batch", "8"},
                    {"finetune-epochs", "2"}};
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
    for (const auto& [option, value] : values_of(presets.value_of(name, "--preset")))
        options.set_preset(option, value, name);
}

}  // namespace espalier
