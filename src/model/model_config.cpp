#include "src/model/model_config.h"

#include "src/base/error.h"
#include "src/base/json.h"
#include "src/model/families/family.h"
#include "src/model/neutral_fields.h"

#include <algorithm>

namespace espalier {

namespace {

void read_heads(const ConfigFields& fields, ModelConfig& config) {
    config.query_heads = fields.size("num_attention_heads");
    config.key_value_heads = fields.size("num_key_value_heads", config.query_heads);
    if (config.query_heads % config.key_value_heads != 0) {
        fields.fail("num_key_value_heads",
                    "a divisor of num_attention_heads (" + std::to_string(config.query_heads) + ") is expected");
    }
    if (!fields.has("head_dim") && config.hidden_size % config.query_heads != 0) {
        fields.fail("num_attention_heads",
                    "without head_dim it must divide hidden_size (" + std::to_string(config.hidden_size) + ")");
    }
    config.head_size = fields.size("head_dim", config.hidden_size / config.query_heads);
    if (config.head_size % 2 != 0) fields.fail("head_dim", "an even head size is expected (rotary embedding)");
}

/// What all families have; the family reads the rest. `whole`: the file, where the decoder's fields are only a part.
ModelConfig read_config(const ConfigFields& fields, const ConfigFields& whole, const Family& family) {
    ModelConfig config;
    config.model_type = family.model_type;
    config.hidden_size = fields.size("hidden_size");
    config.intermediate_size = fields.size("intermediate_size");
    const std::size_t blocks = fields.size("num_hidden_layers");
    constexpr std::size_t most_blocks = 100'000;
    if (blocks > most_blocks)
        fields.fail("num_hidden_layers", "at most " + std::to_string(most_blocks) + " are expected");
    config.blocks.resize(blocks);
    config.vocabulary = fields.size("vocab_size");
    read_heads(fields, config);
    config.rms_norm_epsilon = static_cast<float>(fields.number("rms_norm_eps"));
    if (!(config.rms_norm_epsilon >= 1e-30F && config.rms_norm_epsilon <= 1.0F)) {
        fields.fail("rms_norm_eps", "a small positive number such as 1e-05 is expected");
    }
    config.max_positions = fields.size("max_position_embeddings", 2048);
    config.tied_head = whole.boolean("tie_word_embeddings", family.tied_by_default);
    family.read(fields, config);
    for (const BlockSpecification& block : config.blocks) {
        const BlockSpecification& first = config.blocks.front();
        require(block.norms == first.norms && block.head_norm == first.head_norm && block.qkv_bias == first.qkv_bias &&
                    block.output_bias == first.output_bias && block.mlp_bias == first.mlp_bias,
                "the same tensors in all blocks");
    }
    refuse_other_than_neutral(fields.object(), config, fields.source());
    return config;
}

}  // namespace

ModelConfig ModelConfig::parse(std::string_view text, const std::string& source) {
    const Json json = parse_strict_json(text, source);
    if (!json.is_object()) throw InputError(source + ": is not a JSON object");
    const ConfigFields fields(json, source);
    const Family* const family = find_family(fields.text("model_type", ""));
    if (family == nullptr) fields.fail("model_type", family_names() + " are supported");
    const ConfigFields decoder = family->text_config == nullptr ? fields : fields.inner(family->text_config);
    for (const ConfigFields* const place : {&fields, &decoder}) {
        if (!place->has("quantization_config")) continue;
        throw InputError(place->source() +
                         ": the model is quantised (quantization_config); prune the original model instead");
    }
    return read_config(decoder, fields, *family);
}

std::optional<std::size_t> ModelConfig::smallest_window() const {
    std::optional<std::size_t> smallest;
    for (const BlockSpecification& block : blocks) {
        if (block.window) smallest = std::min(*block.window, smallest.value_or(*block.window));
    }
    return smallest;
}

std::size_t ModelConfig::longest_sequence() const {
    return std::min(max_positions, smallest_window().value_or(max_positions));
}

std::size_t ModelConfig::longest_short_sequence() const {
    std::size_t longest = longest_sequence();
    for (const BlockSpecification& block : blocks) {
        if (!block.rope || block.rope->scaling != RopeScaling::longrope) continue;
        longest = std::min(longest, static_cast<std::size_t>(block.rope->original_max_positions));
    }
    return longest;
}

void ModelConfig::check_sequence_length(std::size_t tokens) const {
    if (tokens > max_positions) {
        throw InputError("sequence length " + std::to_string(tokens) +
                         " exceeds the model's max_position_embeddings of " + std::to_string(max_positions) +
                         "; use --sequence-length " + std::to_string(max_positions) + " or less");
    }
    if (const std::optional<std::size_t> window = smallest_window(); window && tokens > *window) {
        throw InputError("sequence length " + std::to_string(tokens) + " exceeds the model's sliding window of " +
                         std::to_string(*window) + "; use --sequence-length " + std::to_string(*window) + " or less");
    }
}

}  // namespace espalier
