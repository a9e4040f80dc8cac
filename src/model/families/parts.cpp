#include "src/model/families/parts.h"

#include <algorithm>
#include <memory>

namespace espalier {

void use_rope_everywhere(const ConfigFields& fields, ModelConfig& config, bool partial) {
    const auto rope = std::make_shared<const RopeConfig>(read_rope(fields, config.head_size, partial));
    for (BlockSpecification& block : config.blocks) block.rope = rope;
}

void read_biases(const ConfigFields& fields, ModelConfig& config, bool of_mlp) {
    const bool attention = fields.boolean("attention_bias", false);
    const bool mlp = of_mlp && fields.boolean("mlp_bias", false);
    for (BlockSpecification& block : config.blocks) {
        block.qkv_bias = block.output_bias = attention;
        block.mlp_bias = mlp;
    }
}

void use_window_everywhere(std::optional<std::size_t> window, ModelConfig& config) {
    for (BlockSpecification& block : config.blocks) block.window = window;
}

std::optional<std::size_t> read_sliding_window(const ConfigFields& fields, const ModelConfig& config, bool used) {
    if (!fields.has("sliding_window") || !fields.boolean("use_sliding_window", used)) return {};
    if (fields.has("layer_types") && fields.value("layer_types").is_array()) {
        const Json& types = fields.value("layer_types");
        if (std::find(types.begin(), types.end(), "sliding_attention") == types.end()) return {};
    } else if (fields.has("max_window_layers")) {
        const Json& first = fields.value("max_window_layers");
        if (first.is_number_unsigned() && first.get<std::size_t>() >= config.blocks.size()) return {};
    }
    return fields.size("sliding_window");
}

namespace {

void add_attention(const ModelConfig& config, BlockLayout& layout) {
    AttentionTensors& attention = layout.attention;
    attention.input = layout.add_input(config.hidden_size);
    attention.heads_output = layout.add_input(config.query_width());
    attention.q = layout.add_matrix("self_attn.q_proj", config.query_width(), attention.input);
    attention.k = layout.add_matrix("self_attn.k_proj", config.key_value_width(), attention.input);
    attention.v = layout.add_matrix("self_attn.v_proj", config.key_value_width(), attention.input);
    attention.o = layout.add_matrix("self_attn.o_proj", config.hidden_size, attention.heads_output);
}

void add_mlp(const ModelConfig& config, BlockLayout& layout) {
    MlpTensors& mlp = layout.mlp;
    mlp.input = layout.add_input(config.hidden_size);
    mlp.activation = layout.add_input(config.intermediate_size);
    mlp.gate = layout.add_matrix("mlp.gate_proj", config.intermediate_size, mlp.input);
    mlp.up = layout.add_matrix("mlp.up_proj", config.intermediate_size, mlp.input);
    mlp.down = layout.add_matrix("mlp.down_proj", config.hidden_size, mlp.activation);
}

void add_norms(const ModelConfig& config, BlockLayout& layout) {
    const BlockSpecification& block = config.blocks.front();
    AttentionTensors& attention = layout.attention;
    if (block.norms == NormPlacement::before) {
        attention.input_norm = layout.add_norm("input_layernorm.weight", config.hidden_size);
        layout.mlp.input_norm = layout.add_norm("post_attention_layernorm.weight", config.hidden_size);
    } else {
        attention.output_norm = layout.add_norm("post_attention_layernorm.weight", config.hidden_size);
        layout.mlp.output_norm = layout.add_norm("post_feedforward_layernorm.weight", config.hidden_size);
    }
    if (block.head_norm == HeadNorm::none) return;
    const bool together = block.head_norm == HeadNorm::all_heads;
    attention.query_norm =
        layout.add_norm("self_attn.q_norm.weight", together ? config.query_width() : config.head_size);
    attention.key_norm =
        layout.add_norm("self_attn.k_norm.weight", together ? config.key_value_width() : config.head_size);
}

}  // namespace

BlockLayout gated_decoder_layout(const ModelConfig& config, const std::string& prefix, const std::string& head_prefix) {
    BlockLayout layout({.blocks = prefix + "layers.",
                        .embedding = prefix + "embed_tokens.weight",
                        .final_norm = prefix + "norm.weight",
                        .head = head_prefix + "lm_head.weight"});
    add_attention(config, layout);
    add_mlp(config, layout);
    add_norms(config, layout);
    const AttentionTensors& attention = layout.attention;
    const MlpTensors& mlp = layout.mlp;
    const BlockSpecification& block = config.blocks.front();
    if (block.qkv_bias) {
        for (const LinearLayer layer : {attention.q, attention.k, attention.v}) layout.add_bias(layer);
    }
    if (block.output_bias) layout.add_bias(attention.o);
    if (block.mlp_bias) {
        for (const LinearLayer layer : {mlp.gate, mlp.up, mlp.down}) layout.add_bias(layer);
    }
    return layout;
}

}  // namespace espalier
