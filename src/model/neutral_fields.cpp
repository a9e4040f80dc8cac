#include "src/model/neutral_fields.h"

#include "src/base/error.h"
#include "src/base/json.h"
#include "src/model/families/family.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string_view>
#include <vector>

namespace espalier {

namespace {

/// Which values change nothing.
enum class Neutral {
    listed,           ///< those of the table
    each_listed,      ///< arrays of such values, one for each block
    head_size,        ///< head_dim
    attention_scale,  ///< 1 / sqrt(head_dim)
    hidden_size,      ///< hidden_size
    epsilon,          ///< rms_norm_eps
    rope_theta,       ///< rope_theta
};

struct NeutralField {
    const char* name;
    const char* values;  ///< a JSON array; empty where the value follows from other fields
    Neutral kind = Neutral::listed;
};

constexpr const char* one = "[1]";
constexpr const char* yes = "[true]";
constexpr const char* no = "[false]";
constexpr const char* off = "[0, false]";
constexpr const char* no_experts = "[0, 1]";  // of one expert there is no choice; its tensors decide
constexpr const char* silu = R"(["silu", "swish"])";
constexpr const char* rms_norm = R"(["rms", "rmsnorm", "rms_norm", "RMSNorm", "RMS"])";

const std::vector<NeutralField>& neutral_fields() {
    static const std::vector<NeutralField> fields = {
        // Rotary position embedding
        {"partial_rotary_factor", one},
        {"rotary_pct", one},
        {"rotary_percent", one},
        {"rope_pct", one},
        {"rope_percentage", one},
        {"rope_ratio", one},
        {"rotary_dim", "", Neutral::head_size},
        {"rotary_ndims", "", Neutral::head_size},
        {"rotary_emb_base", "", Neutral::rope_theta},
        {"rotary_base", "", Neutral::rope_theta},
        {"rope_base", "", Neutral::rope_theta},
        {"rope_local_base_freq", "", Neutral::rope_theta},
        {"local_rope_theta", "", Neutral::rope_theta},
        {"global_rope_theta", "", Neutral::rope_theta},
        {"swa_rope_theta", "", Neutral::rope_theta},
        {"layer_rope_theta", "[]"},
        {"rope_interleave", no},
        {"rope_interleaved", no},
        {"rotary_interleaved", no},
        {"interleaved_rope", no},
        {"no_rope_layers", "[1, true]", Neutral::each_listed},  // 1: the block has rotary embedding
        {"no_rope_layer_interval", "[0]"},
        {"nope_layer_interval", "[0]"},
        {"use_rope", yes},
        {"rotary", yes},
        {"use_rotary_embedding", yes},
        {"position_embedding_type", R"(["rope", "rotary"])"},
        {"position_embedding", R"(["rope", "rotary"])"},
        {"alibi", no},
        {"use_alibi", no},
        {"use_xpos", no},
        {"use_mrope", no},
        {"mrope_section", "[]"},
        {"use_mem_rope", no},
        {"rope_alpha", one},
        {"ntk_alpha", one},
        {"use_dynamic_ntk", no},
        {"rope_scaling_factor", one},
        // Attention: scale, caps, sinks, gates
        {"attention_multiplier", "", Neutral::attention_scale},
        {"attention_scale", "", Neutral::attention_scale},
        {"attn_scale", "", Neutral::attention_scale},
        {"softmax_scale", "", Neutral::attention_scale},
        {"attn_logit_scale", "", Neutral::attention_scale},
        {"query_pre_attn_scalar", "", Neutral::head_size},
        {"scale_attn_weights", yes},
        {"scale_attn_by_inverse_layer_idx", no},
        {"attention_in_multiplier", one},
        {"attention_out_multiplier", one},
        {"attention_output_multiplier", one},
        {"attention_value_scale", one},
        {"key_multiplier", one},
        {"qk_scale_factor", one},
        {"attn_logit_softcapping", off},
        {"attn_logit_softcap", off},
        {"attn_logit_cap", off},
        {"attention_logit_softcapping", off},
        {"attention_logit_cap", off},
        {"attn_softcap", off},
        {"softcap", off},
        {"attention_sinks", off},
        {"attention_sink", off},
        {"attn_sinks", off},
        {"use_attention_sinks", off},
        {"add_full_attention_sink_bias", no},
        {"add_swa_attention_sink_bias", no},
        {"attn_temperature_tuning", off},
        {"use_logn_attn", no},
        {"log_scale", no},
        {"clip_qkv", off},
        {"qkv_clip", off},
        {"attention_k_eq_v", no},
        {"use_attention_gate", no},
        {"attn_output_gate", no},
        {"use_differential_attention", no},
        {"num_kv_shared_layers", "[0]"},
        // Attention: who sees whom
        {"layer_types", R"(["full_attention", "sliding_attention"])", Neutral::each_listed},
        {"attention_chunk_size", off},
        {"attention_window_size", off},
        {"local_attention_window_len", off},
        {"sliding_window_size", off},
        {"window_size", off},
        {"interleaved_sliding_window", off},
        {"sliding_window_pattern", off},
        {"global_attn_every_n_layers", "[0, 1]"},
        {"window_layers", "[]"},
        {"use_bidirectional_attention", no},
        {"is_causal", yes},
        {"prefix_lm", no},
        {"add_cross_attention", no},
        {"cross_attention_layers", "[]"},
        {"is_encoder_decoder", no},
        // Residual stream
        {"residual_multiplier", one},
        {"residual_scale", one},
        {"residual_scaling", one},
        {"scale_depth", "[]"},
        {"layer_scale", off},
        {"value_residual", no},
        {"num_loops", one},
        {"parallel_residual", no},
        {"use_parallel_residual", no},
        {"parallel_attn", no},
        {"parallel_attention", no},
        {"apply_residual_connection_post_layernorm", no},
        // Embedding and logits
        {"embedding_multiplier", one},
        {"embedding_multiplier_scale", one},
        {"embedding_scale", one},
        {"embed_scale", one},
        {"emb_scale", one},
        {"scale_emb", one},
        {"scale_embedding", no},
        {"scale_embeddings", no},
        {"normalize_embeddings", no},
        {"dim_model_base", "", Neutral::hidden_size},
        {"logits_scaling", one},
        {"logit_scale", one},
        {"logits_scale", one},
        {"logit_scaling", one},
        {"logit_multiplier", one},
        {"output_multiplier", one},
        {"output_multiplier_scale", one},
        {"lm_head_multiplier", one},
        {"logits_mup_width_multiplier", one},
        {"width_multiplier", one},
        {"mup_width_scale", one},
        {"mup_enabled", no},
        {"use_mup", no},
        {"final_logit_softcapping", off},
        {"final_logit_softcap", off},
        {"logits_soft_cap", off},
        {"logit_softcapping", off},
        {"output_logit_soft_cap", off},
        // Experts
        {"num_local_experts", no_experts},
        {"num_experts", no_experts},
        {"n_routed_experts", no_experts},
        {"num_routed_experts", no_experts},
        {"moe_num_experts", no_experts},
        {"n_shared_experts", "[0]"},
        {"num_shared_experts", "[0]"},
        {"moe_num_shared_experts", "[0]"},
        {"first_k_dense_replace", "[0]"},
        {"mlp_only_layers", "[]"},
        {"is_moe", no},
        {"use_moe", no},
        {"enable_moe_block", no},
        // Norms
        {"norm_type", rms_norm},
        {"normalization_type", rms_norm},
        {"normalization", rms_norm},
        {"layer_norm_type", rms_norm},
        {"layernorm_type", rms_norm},
        {"use_rms_norm", yes},
        {"rms_norm", yes},
        {"layer_norm_eps", "", Neutral::epsilon},
        {"layer_norm_epsilon", "", Neutral::epsilon},
        {"norm_eps", "", Neutral::epsilon},
        {"norm_epsilon", "", Neutral::epsilon},
        {"apply_layernorm_1p", no},
        {"rms_norm_add_unit_offset", no},
        {"rms_norm_offset", off},
        {"zero_centered_gamma", no},
        {"sandwich_norm", no},
        {"norm_after", no},
        {"use_post_norm", no},
        {"use_sandwich_norm", no},
        {"qk_norm", no},
        {"use_qk_norm", no},
        {"qk_layernorm", no},
        {"use_query_key_norm", no},
        // The gated MLP
        {"hidden_act", silu},
        {"hidden_activation", silu},
        {"activation_function", silu},
        {"activation", silu},
        {"mlp_hidden_act", silu},
        {"mlp_activation", silu},
        {"ffn_activation", silu},
        {"use_gated_mlp", yes},
        {"gated_mlp", yes},
        {"is_gated_act", yes},
        {"mlp_multipliers", one, Neutral::each_listed},
        {"swiglu_alpha", one},
        {"swiglu_limit", off},
        {"mlp_gate_softcap", off},
        {"mlp_up_softcap", off},
        {"activation_sparsity_pattern", "[0]", Neutral::each_listed},
    };
    return fields;
}

/// Of the first block that rotates; 0 where none does.
double rope_theta(const ModelConfig& config) {
    for (const BlockSpecification& block : config.blocks) {
        if (block.rope) return block.rope->theta;
    }
    return 0;
}

/// The one neutral value of a field whose value follows from others.
double neutral_number(Neutral kind, const ModelConfig& config) {
    switch (kind) {
        case Neutral::head_size:
            return static_cast<double>(config.head_size);
        case Neutral::attention_scale:
            return 1 / std::sqrt(static_cast<double>(config.head_size));
        case Neutral::hidden_size:
            return static_cast<double>(config.hidden_size);
        case Neutral::epsilon:
            return static_cast<double>(config.rms_norm_epsilon);
        case Neutral::rope_theta:
            return rope_theta(config);
        case Neutral::listed:
        case Neutral::each_listed:
            break;
    }
    throw BugError("internal error: a field without a neutral number");
}

bool nearly_equal(double a, double b) {
    return std::abs(a - b) <= 1e-6 * std::abs(b);
}

bool is_neutral(const NeutralField& field, const Json& value, const ModelConfig& config) {
    if (field.kind != Neutral::listed && field.kind != Neutral::each_listed) {
        return value.is_number() && nearly_equal(value.get<double>(), neutral_number(field.kind, config));
    }
    if (value.is_array() && value.empty()) return true;
    const Json values = Json::parse(field.values);
    const auto listed = [&](const Json& one_value) {
        return std::find(values.begin(), values.end(), one_value) != values.end();
    };
    if (field.kind == Neutral::each_listed && value.is_array()) return std::all_of(value.begin(), value.end(), listed);
    return listed(value);
}

/// "1", "0 or false", "1 or true for each".
std::string neutral_text(const NeutralField& field, const ModelConfig& config) {
    if (field.kind != Neutral::listed && field.kind != Neutral::each_listed) {
        char text[32];
        std::snprintf(text, sizeof text, "%g", neutral_number(field.kind, config));
        return text;
    }
    std::string text;
    for (const Json& value : Json::parse(field.values)) text += (text.empty() ? "" : " or ") + value.dump();
    if (text.empty()) return "null";
    return field.kind == Neutral::each_listed ? text + " for each" : text;
}

void check_object(const Json& object, const ModelConfig& config, const std::string& source) {
    const std::span<const std::string_view> read = family_of(config.model_type).fields_read;
    for (const NeutralField& field : neutral_fields()) {
        const Json* found = object.find(field.name);
        if (found == nullptr || found->is_null() || is_neutral(field, *found, config)) continue;
        if (std::find(read.begin(), read.end(), field.name) != read.end()) continue;
        std::string shown = found->ascii();
        if (shown.size() > 100) shown = shown.substr(0, 100) + "…";
        throw InputError(source + ": '" + field.name + "' is " + shown +
                         ", which changes what the model computes; only " + neutral_text(field, config) +
                         " is supported in a model of type " + config.model_type);
    }
}

}  // namespace

void refuse_other_than_neutral(const Json& json, const ModelConfig& config, const std::string& source) {
    check_object(json, config, source);
    for (const char* const name : {"rope_parameters", "rope_scaling"}) {
        const Json* rope = json.find(name);
        if (rope == nullptr || !rope->is_object()) continue;
        const std::string rope_source = source + ": " + name;
        check_object(*rope, config, rope_source);
        for (const auto& [kind, object] : rope->items()) {  // transformers 5 may nest by kind of attention
            if (object.is_object()) check_object(object, config, rope_source + ": " + kind);
        }
        // Blocks that rotate do it in one way, that of full attention.
        if (config.smallest_window() && rope->contains("full_attention") && rope->contains("sliding_attention") &&
            (*rope)["full_attention"] != (*rope)["sliding_attention"]) {
            throw InputError(rope_source +
                             ": 'full_attention' and 'sliding_attention' differ, which changes what the model "
                             "computes; only one rotary embedding for all blocks is supported");
        }
    }
}

}  // namespace espalier
