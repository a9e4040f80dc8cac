// SmolLM3 (Bakouch et al. 2025): every fourth block attends without positions (NoPE).
#include "src/model/families/family.h"
#include "src/model/families/parts.h"

#include <array>

namespace espalier {

namespace {

constexpr std::array<std::string_view, 2> smollm3_fields = {"no_rope_layers", "no_rope_layer_interval"};

/// The entry of no_rope_layers is 1 where a block does rotate, whatever its name says.
bool rotates(const ConfigFields& fields, const ModelConfig& config, std::size_t block) {
    if (!fields.has("no_rope_layers")) return (block + 1) % fields.size("no_rope_layer_interval", 4) != 0;
    const Json& entries = fields.value("no_rope_layers");
    // A model that was cut may have the longer list of the whole one.
    const std::string expected = "a list of " + std::to_string(config.blocks.size()) + " numbers 0 or 1 is expected";
    if (!entries.is_array() || entries.size() < config.blocks.size()) fields.fail("no_rope_layers", expected);
    const Json& entry = entries[block];
    if (entry.is_boolean()) return entry.get<bool>();
    if (entry != 0 && entry != 1) fields.fail("no_rope_layers", expected);
    return entry == 1;
}

void read_smollm3(const ConfigFields& fields, ModelConfig& config) {
    // transformers' defaults, 2,000,000 and 4, are those of no model that is published.
    if (!fields.has("rope_theta") && !fields.has("rope_parameters")) {
        fields.fail("rope_theta", "SmolLM3 models must state it");
    }
    if (!fields.has("num_key_value_heads")) fields.fail("num_key_value_heads", "SmolLM3 models must state it");
    use_rope_everywhere(fields, config);
    for (std::size_t block = 0; block < config.blocks.size(); ++block) {
        if (!rotates(fields, config, block)) config.blocks[block].rope.reset();
    }
    read_biases(fields, config, true);
    use_window_everywhere(read_sliding_window(fields, config, false), config);
}

}  // namespace

extern const Family smollm3;
constinit const Family smollm3 = {"smollm3", read_smollm3, llama_layout, smollm3_fields, true};

}  // namespace espalier
