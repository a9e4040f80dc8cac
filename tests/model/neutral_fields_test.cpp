// Fields that change the computation are accepted with their neutral values and refused by name with any other.
#include "src/model/neutral_fields.h"

#include "src/base/error.h"
#include "tests/support/expect.h"
#include "tests/support/tiny_model.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using namespace support;

struct FieldCase {
    const char* field;
    Json neutral, other;
    const char* said = "";  ///< what the sentence says is supported
};

// Of the tiny models: head_dim 4 (qwen3: 6), hidden_size 16, rms_norm_eps 1e-5, rope_theta 10000.
const std::vector<FieldCase> field_cases = {
    {"partial_rotary_factor", 1.0, 0.5, "only 1 is supported"},
    {"rotary_pct", 1, 0.25},
    {"rotary_dim", 4, 2, "only 4 is"},
    {"rotary_emb_base", 10000, 500000, "only 10000"},
    {"rope_interleave", false, true},
    {"rope_interleaved", false, true},
    {"no_rope_layers", Json::array({1, 1}), Json::array({1, 0}), "only 1 or true for each"},
    {"no_rope_layer_interval", 0, 4},
    {"position_embedding_type", "rope", "alibi"},
    {"use_mrope", false, true},
    {"attention_multiplier", 0.5, 0.0078125, "only 0.5 is"},
    {"attention_multiplier", 0.5, 1.0},
    {"query_pre_attn_scalar", 4, 256, "only 4 is"},
    {"attn_logit_softcapping", 0, 50.0, "only 0 or false"},
    {"attention_sinks", false, true},
    {"attention_value_scale", 1, 0.707},
    {"attn_temperature_tuning", false, true},
    {"clip_qkv", false, 8.0},
    {"layer_types", Json::array({"full_attention", "full_attention"}),
     Json::array({"full_attention", "linear_attention"})},
    {"attention_chunk_size", 0, 8192},
    {"sliding_window_pattern", 0, "LLLG"},
    {"use_bidirectional_attention", false, true},
    {"residual_multiplier", 1.0, 0.22},
    {"scale_depth", nullptr, 1.4, "only null"},
    {"use_parallel_residual", false, true},
    {"embedding_multiplier", 1, 12.0},
    {"scale_emb", 1, 12},
    {"dim_model_base", 16, 256},
    {"logits_scaling", 1, 8.0},
    {"logit_scale", 1.0, 0.0625},
    {"final_logit_softcapping", 0, 30.0},
    {"mup_enabled", false, true},
    {"num_local_experts", 0, 8},
    {"num_experts", 1, 64},
    {"n_routed_experts", nullptr, 64},
    {"n_shared_experts", 0, 2},
    {"norm_type", "rms_norm", "layer_norm"},
    {"layer_norm_eps", 1e-5, 1e-6, "only 1e-05 is"},
    {"norm_after", false, true},
    {"use_qk_norm", false, true},
    {"hidden_act", "silu", "gelu", "only \"silu\" or \"swish\""},
    {"hidden_act", "swish", 3},
    {"hidden_activation", "silu", "gelu_pytorch_tanh"},
    {"mlp_multipliers", Json::array({1.0, 1}), Json::array({1.0, 0.5})},
    {"swiglu_limit", 0, 7.0},
};

TEST(NeutralFields, NeutralValuesAreAcceptedAndOthersRefusedByName) {
    for (const FieldCase& one : field_cases) {
        SCOPED_TRACE(one.field);
        for (const char* const family : {"llama", "mistral", "qwen2"}) {
            EXPECT_NO_THROW(parse_tiny_config(family));
            Json json = tiny_config(family);
            json[one.field] = one.neutral;
            EXPECT_NO_THROW(ModelConfig::parse(json.dump(), "config.json"));
            json[one.field] = nullptr;
            EXPECT_NO_THROW(ModelConfig::parse(json.dump(), "config.json"));
            json[one.field] = one.other;
            const std::string field = "config.json: '" + std::string(one.field) + "' is " + one.other.dump();
            expect_input_error({field.c_str(), "changes what the model computes", "is supported", one.said, family},
                               [&] { ModelConfig::parse(json.dump(), "config.json"); });
        }
    }
}

TEST(NeutralFields, RopeObjectsAreLookedThroughToo) {
    const Json half = {{"rope_type", "default"}, {"rope_theta", 10000.0}, {"partial_rotary_factor", 0.5}};
    const Json whole = {{"rope_type", "default"}, {"rope_theta", 10000.0}, {"partial_rotary_factor", 1.0}};
    for (const char* const name : {"rope_parameters", "rope_scaling"}) {
        EXPECT_NO_THROW(parse_tiny_config("llama", {{name, whole}}));
        expect_input_error({"config.json: ", name, "'partial_rotary_factor' is 0.5"}, [&] {
            parse_tiny_config("llama", {{name, half}});
        });
        expect_input_error({name, "full_attention: 'partial_rotary_factor' is 0.5"}, [&] {
            parse_tiny_config("qwen3", {{name, {{"sliding_attention", whole}, {"full_attention", half}}}});
        });
    }
    expect_input_error({"rope_scaling: 'mrope_section' is [16,24,24]"}, [&] {
        parse_tiny_config("qwen2", {{"rope_scaling", {{"type", "default"}, {"mrope_section", {16, 24, 24}}}}});
    });
}

TEST(NeutralFields, OneRotaryEmbeddingForAllBlocks) {
    const Json full = {{"rope_type", "default"}, {"rope_theta", 1e6}}, sliding = {{"rope_theta", 1e4}};
    Json changes = {{"rope_parameters", {{"full_attention", full}, {"sliding_attention", sliding}}},
                    {"layer_types", {"full_attention", "full_attention"}},
                    {"sliding_window", 32},
                    {"use_sliding_window", true}};
    EXPECT_NO_THROW(parse_tiny_config("qwen3", changes));
    changes["layer_types"] = {"full_attention", "sliding_attention"};
    expect_input_error({"rope_parameters", "'full_attention' and 'sliding_attention' differ"},
                       [&] { parse_tiny_config("qwen3", changes); });
    changes["rope_parameters"]["sliding_attention"] = full;
    EXPECT_NO_THROW(parse_tiny_config("qwen3", changes));
}

TEST(NeutralFields, WhatAFamilysParserReadsIsItsBusiness) {
    EXPECT_NO_THROW(parse_tiny_config("qwen3", {{"use_qk_norm", true}}));
    expect_input_error({"'use_qk_norm' is true", "llama"}, [&] {
        parse_tiny_config("llama", {{"use_qk_norm", true}});
    });
}

TEST(NeutralFields, ALongValueIsCut) {
    const Json layers(std::vector<int>(500, 0));
    try {
        parse_tiny_config("llama", {{"no_rope_layers", layers}});
        ADD_FAILURE() << "accepted";
    } catch (const InputError& error) {
        EXPECT_LT(std::string(error.what()).size(), 300U);
    }
}

}  // namespace
}  // namespace espalier
