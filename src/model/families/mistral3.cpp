// Mistral Small 3.1 and 3.2: a Mistral decoder inside a model that also sees images. Only the decoder is pruned.
#include "src/model/families/family.h"
#include "src/model/families/parts.h"

#include <array>

namespace espalier {

namespace {

constexpr std::array<std::string_view, 2> beside_the_decoder = {"vision_tower.", "multi_modal_projector."};

void read_mistral3(const ConfigFields& fields, ModelConfig& config) {
    if (fields.text("model_type", "mistral") != "mistral") fields.fail("model_type", "'mistral' is expected");
    if (!fields.has("num_key_value_heads")) fields.fail("num_key_value_heads", "Mistral models must state it");
    use_rope_everywhere(fields, config);
    if (fields.has("sliding_window")) use_window_everywhere(fields.size("sliding_window"), config);
}

BlockLayout mistral3_layout(const ModelConfig& config) {
    return gated_decoder_layout(config, "language_model.model.", "language_model.");
}

}  // namespace

extern const Family mistral3;
constinit const Family mistral3 = {"mistral3", read_mistral3, mistral3_layout,   {},
                                   true,       "text_config", beside_the_decoder};

}  // namespace espalier
