// config.json of every family in the spellings of transformers 4 and 5, and every refusal.
#include "src/model/model_config.h"

#include "tests/support/expect.h"
#include "tests/support/tiny_model.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using namespace support;

ModelConfig parse(const Json& json) {
    return ModelConfig::parse(json.dump(), "config.json");
}

void expect_refused(const std::string& family, const Json& changes, std::initializer_list<const char*> words) {
    SCOPED_TRACE(changes.dump());
    expect_input_error({"config.json"}, [&] { parse_tiny_config(family, changes); });
    expect_input_error(words, [&] { parse_tiny_config(family, changes); });
}

TEST(ModelConfig, Llama3AsTransformers4WritesIt) {
    const ModelConfig config = parse(Json::parse(R"({
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "head_dim": 128,
        "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
        "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama", "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
        "rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                         "original_max_position_embeddings": 8192, "rope_type": "llama3"},
        "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16", "vocab_size": 128256})"));
    EXPECT_EQ(config.model_type, "llama");
    EXPECT_EQ(config.hidden_size, 4096U);
    EXPECT_EQ(config.intermediate_size, 14336U);
    EXPECT_EQ(config.blocks.size(), 32U);
    EXPECT_EQ(config.query_heads, 32U);
    EXPECT_EQ(config.key_value_heads, 8U);
    EXPECT_EQ(config.head_size, 128U);
    EXPECT_EQ(config.vocabulary, 128256U);
    EXPECT_EQ(config.rms_norm_epsilon, 1e-5F);
    EXPECT_EQ(config.max_positions, 131072U);
    EXPECT_EQ(config.blocks[0].rope->theta, 500000);
    EXPECT_EQ(config.blocks[0].rope->scaling, RopeScaling::llama3);
    EXPECT_EQ(config.blocks[0].rope->factor, 8);
    EXPECT_EQ(config.blocks[0].rope->original_max_positions, 8192);
    EXPECT_EQ(config.blocks[0].head_norm, HeadNorm::none);
    const BlockSpecification& block = config.blocks.front();
    EXPECT_FALSE(config.tied_head || block.qkv_bias || block.output_bias || block.mlp_bias);
    EXPECT_FALSE(config.smallest_window().has_value());
}

TEST(ModelConfig, Llama3AsTransformers5WritesIt) {
    Json json = tiny_config("llama");
    json["rope_parameters"] = {{"rope_theta", 500000.0},  {"rope_type", "llama3"},
                               {"factor", 8.0},           {"low_freq_factor", 1.0},
                               {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 8192}};
    json["dtype"] = "bfloat16";
    const ModelConfig config = parse(json);
    EXPECT_EQ(config.blocks[0].rope->theta, 500000);
    EXPECT_EQ(config.blocks[0].rope->scaling, RopeScaling::llama3);
    EXPECT_EQ(config.blocks[0].rope->factor, 8);
}

TEST(ModelConfig, RopeParametersByKindOfAttention) {
    const ModelConfig config =
        parse_tiny_config("qwen3", {{"rope_parameters",
                                     {{"full_attention", {{"rope_theta", 1000000.0}, {"rope_type", "default"}}},
                                      {"sliding_attention", {{"rope_theta", 10000.0}, {"rope_type", "default"}}}}}});
    EXPECT_EQ(config.blocks[0].rope->theta, 1000000);
    EXPECT_EQ(config.blocks[0].rope->scaling, RopeScaling::none);
}

TEST(ModelConfig, DefaultsOfOldConfigs) {
    // LLaMA-1: no key/value heads, no theta, no biases; null counts as absent.
    const ModelConfig config = parse(Json::parse(R"({"model_type": "llama", "hidden_size": 64, "intermediate_size": 172,
        "num_hidden_layers": 2, "num_attention_heads": 4, "rms_norm_eps": 1e-6, "vocab_size": 32000,
        "rope_scaling": null, "num_key_value_heads": null, "quantization_config": null})"));
    EXPECT_EQ(config.key_value_heads, 4U);
    EXPECT_EQ(config.head_size, 16U);
    EXPECT_EQ(config.blocks[0].rope->theta, 10000);
    EXPECT_EQ(config.max_positions, 2048U);
    EXPECT_FALSE(config.tied_head);
}

TEST(ModelConfig, BiasesAndNormsOfEveryFamily) {
    struct Expected {
        const char* family;
        bool qkv, output, mlp, norms;
    };
    for (const Expected& expected : {Expected{"llama", false, false, false, false},
                                     {"llama-bias", true, true, true, false},
                                     {"mistral", false, false, false, false},
                                     {"qwen2", true, false, false, false},
                                     {"qwen3", false, false, false, true},
                                     {"qwen3-bias", true, true, false, true}}) {
        const ModelConfig config = parse_tiny_config(expected.family);
        EXPECT_EQ(config.blocks.front().qkv_bias, expected.qkv) << expected.family;
        EXPECT_EQ(config.blocks.front().output_bias, expected.output) << expected.family;
        EXPECT_EQ(config.blocks.front().mlp_bias, expected.mlp) << expected.family;
        EXPECT_EQ(config.blocks[0].head_norm == HeadNorm::each_head, expected.norms) << expected.family;
    }
    // Qwen2 and Mistral have no such switches: their code ignores the fields.
    EXPECT_FALSE(parse_tiny_config("mistral", {{"attention_bias", true}}).blocks.front().qkv_bias);
    EXPECT_TRUE(parse_tiny_config("qwen2", {{"attention_bias", false}}).blocks.front().qkv_bias);
}

TEST(ModelConfig, HeadSizeNeedNotBeHiddenSizeOverHeads) {
    const ModelConfig config = parse_tiny_config("mistral", {{"head_dim", 10}});
    EXPECT_EQ(config.head_size, 10U);
    EXPECT_EQ(config.query_width(), 40U);
    EXPECT_EQ(config.key_value_width(), 20U);
}

TEST(ModelConfig, SlidingWindows) {
    const auto window = [](const std::string& family, const Json& changes) {
        return parse_tiny_config(family, changes).smallest_window();
    };
    EXPECT_EQ(window("mistral", {{"sliding_window", 32}}), 32U);
    EXPECT_EQ(window("mistral", {{"sliding_window", nullptr}}), std::nullopt);
    EXPECT_EQ(window("llama", {{"sliding_window", 32}}), 32U) << "whoever heeds it computes the same within it";
    EXPECT_EQ(window("llama", {{"sliding_window", 32}, {"use_sliding_window", false}}), std::nullopt);
    EXPECT_EQ(window("qwen2", {{"sliding_window", 32}, {"use_sliding_window", false}}), std::nullopt);
    EXPECT_EQ(window("qwen2", {{"sliding_window", 32}, {"use_sliding_window", true}, {"max_window_layers", 1}}), 32U);
    EXPECT_EQ(window("qwen2", {{"sliding_window", 32}, {"use_sliding_window", true}, {"max_window_layers", 2}}),
              std::nullopt);
    const Json full = {"full_attention", "full_attention"}, mixed = {"full_attention", "sliding_attention"};
    EXPECT_EQ(window("qwen3", {{"sliding_window", 32}, {"use_sliding_window", true}, {"layer_types", full}}),
              std::nullopt);
    EXPECT_EQ(window("qwen3", {{"sliding_window", 32}, {"use_sliding_window", true}, {"layer_types", mixed}}), 32U);
}

TEST(ModelConfig, SequenceLengthStaysWithinPositionsAndWindow) {
    const ModelConfig config = parse_tiny_config("mistral", {{"sliding_window", 32}});
    EXPECT_NO_THROW(config.check_sequence_length(32));
    expect_input_error({"33", "sliding window of 32", "--sequence-length 32"},
                       [&] { config.check_sequence_length(33); });
    expect_input_error({"65", "max_position_embeddings of 64", "--sequence-length 64"},
                       [&] { config.check_sequence_length(65); });
}

TEST(ModelConfig, RopeScalings) {
    const auto rope = [](const Json& scaling) {
        return *parse_tiny_config("llama", {{"rope_scaling", scaling}}).blocks[0].rope;
    };
    EXPECT_EQ(rope({{"type", "linear"}, {"factor", 2.5}}).scaling, RopeScaling::linear);
    EXPECT_EQ(rope({{"type", "linear"}, {"factor", 2.5}}).factor, 2.5);
    EXPECT_EQ(rope({{"type", "dynamic"}, {"factor", 2.0}}).scaling,
              RopeScaling::none);  // acts beyond max positions only
    EXPECT_EQ(rope({{"rope_type", "default"}}).scaling, RopeScaling::none);
    const RopeConfig yarn = rope({{"rope_type", "yarn"},
                                  {"factor", 4.0},
                                  {"original_max_position_embeddings", 32768},
                                  {"beta_fast", 16},
                                  {"beta_slow", 2},
                                  {"attention_factor", 1.5}});
    EXPECT_EQ(yarn.scaling, RopeScaling::yarn);
    EXPECT_EQ(yarn.original_max_positions, 32768);
    EXPECT_EQ(yarn.beta_fast, 16);
    EXPECT_EQ(yarn.beta_slow, 2);
    EXPECT_EQ(yarn.attention_factor, 1.5);
}

TEST(ModelConfig, YarnWithoutOriginalPositionsUsesMaxPositions) {
    // transformers 4: original_max_position_embeddings is optional, config.max_position_embeddings stands in for it.
    const RopeConfig rope =
        *parse_tiny_config("llama", {{"rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}}}}).blocks[0].rope;
    EXPECT_EQ(rope.scaling, RopeScaling::yarn);
    EXPECT_EQ(rope.original_max_positions, 64);
}

TEST(ModelConfig, RefusesOtherModels) {
    expect_refused("llama", {{"model_type", "gpt2"}}, {"'model_type'", "gpt2", "supported"});
    expect_refused("llama", {{"model_type", nullptr}}, {"'model_type'", "missing"});
    expect_refused("llama", {{"model_type", 3}}, {"'model_type'", "string"});
    expect_refused("llama", {{"hidden_act", "gelu"}}, {"'hidden_act'", "gelu", "silu"});
    expect_refused("llama", {{"quantization_config", {{"bits", 4}}}}, {"quantised"});
    expect_input_error({"config.json", "object"}, [] { ModelConfig::parse("[]", "config.json"); });
    expect_input_error({"config.json", "JSON"}, [] { ModelConfig::parse("{", "config.json"); });
    expect_input_error({"config.json", "twice"}, [] { ModelConfig::parse(R"({"a":1,"a":2})", "config.json"); });
}

TEST(ModelConfig, RefusesMissingAndWrongSizes) {
    for (const char* const field :
         {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"}) {
        expect_refused("llama", {{field, nullptr}}, {field, "missing"});
        for (const Json& value : {Json(0), Json(-1), Json(1.5), Json("8"), Json(true), Json(std::uint64_t{1} << 40)}) {
            expect_refused("llama", {{field, value}}, {field, "positive integer"});
        }
    }
    expect_refused("llama", {{"rms_norm_eps", nullptr}}, {"rms_norm_eps", "missing"});
    for (const Json& value : {Json(0), Json(-1e-5), Json("1e-5")}) {
        expect_refused("llama", {{"rms_norm_eps", value}}, {"rms_norm_eps", "positive number"});
    }
    expect_refused("llama", {{"tie_word_embeddings", 1}}, {"tie_word_embeddings", "true or false"});
    expect_refused("llama", {{"attention_bias", "no"}}, {"attention_bias", "true or false"});
    expect_refused("llama", {{"max_position_embeddings", 0}}, {"max_position_embeddings"});
    expect_refused("mistral", {{"sliding_window", -4}}, {"sliding_window"});
}

TEST(ModelConfig, RefusesHeadsThatDoNotFit) {
    expect_refused("llama", {{"num_key_value_heads", 3}}, {"num_key_value_heads", "divisor"});
    expect_refused("llama", {{"num_key_value_heads", 8}}, {"num_key_value_heads", "divisor"});
    expect_refused("llama", {{"num_attention_heads", 5}, {"num_key_value_heads", 5}},
                   {"num_attention_heads", "divide"});
    expect_refused("llama", {{"head_dim", 5}}, {"head_dim", "even"});
    expect_refused("mistral", {{"num_key_value_heads", nullptr}}, {"num_key_value_heads", "state it"});
}

TEST(ModelConfig, RefusesUnknownRopes) {
    const auto refused = [](const Json& scaling, std::initializer_list<const char*> words) {
        expect_refused("llama", {{"rope_scaling", scaling}}, words);
    };
    refused({{"rope_type", "proportional"}, {"factor", 4.0}}, {"proportional", "not supported"});
    refused({{"rope_type", "longrope"}, {"short_factor", {1.0}}, {"long_factor", {1.0, 2.0}}},
            {"rope_scaling", "'short_factor' is [1.0]", "2 positive numbers"});
    refused({{"rope_type", "longrope"}, {"short_factor", {1.0, 0.0}}}, {"'short_factor'", "positive"});
    refused({{"factor", 8.0}}, {"rope_scaling", "'factor' is 8.0", "default"});
    refused({{"type", "default"}, {"factor", 8.0}}, {"'factor' is 8.0", "default"});
    refused({{"rope_type", "default"}, {"type", "linear"}, {"factor", 4.0}}, {"'type' is \"linear\"", "rope_type"});
    refused({{"type", "linear"}}, {"factor", "missing"});
    refused({{"type", "linear"}, {"factor", -1.0}}, {"factor", "positive"});
    refused({{"type", 3}}, {"type", "string"});
    refused("linear", {"rope_scaling", "object"});
    refused({{"rope_type", "llama3"},
             {"factor", 8.0},
             {"low_freq_factor", 4.0},
             {"high_freq_factor", 4.0},
             {"original_max_position_embeddings", 8192}},
            {"high_freq_factor", "above"});
    refused({{"rope_type", "llama3"}, {"factor", 8.0}}, {"low_freq_factor", "missing"});
    const Json yarn = {{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 32768}};
    for (const auto& [field, value] :
         {std::pair<const char*, Json>{"mscale", 1.0}, {"mscale_all_dim", 1.0}, {"truncate", false}}) {
        Json changed = yarn;
        changed[field] = value;
        refused(changed, {field});
    }
    expect_refused("llama", {{"rope_theta", 0}}, {"rope_theta", "positive"});
    // What is said twice is said alike.
    const Json linear = {{"rope_type", "linear"}, {"factor", 2.0}, {"rope_theta", 500000.0}};
    expect_refused("llama", {{"rope_theta", 10000.0}, {"rope_parameters", linear}},
                   {"'rope_theta' is 10000.0", "rope_parameters"});
    expect_refused("llama",
                   {{"rope_theta", 500000.0},
                    {"rope_parameters", linear},
                    {"rope_scaling", {{"type", "linear"}, {"factor", 4.0}}}},
                   {"'rope_scaling' is", "rope_parameters"});
    EXPECT_NO_THROW(parse_tiny_config("llama", {{"rope_theta", 500000.0},
                                                {"rope_parameters", linear},
                                                {"rope_scaling", {{"type", "linear"}, {"factor", 2.0}}}}));
}

// The configurations of well-known models, as published: what they carry without effect stays accepted.
TEST(ModelConfig, PublishedConfigurationsAreAccepted) {
    const std::vector<const char*> published = {
        // Llama 2 7B
        R"({"_name_or_path": "meta-llama/Llama-2-7b-hf", "architectures": ["LlamaForCausalLM"], "bos_token_id": 1,
        "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
        "intermediate_size": 11008, "max_position_embeddings": 4096, "model_type": "llama", "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 32, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
        "rope_scaling": null, "tie_word_embeddings": false, "torch_dtype": "float16",
        "transformers_version": "4.31.0.dev0", "use_cache": true, "vocab_size": 32000})",
        // OpenLLaMA 3B
        R"({"architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
        "hidden_size": 3200, "initializer_range": 0.02, "intermediate_size": 8640, "max_position_embeddings": 2048,
        "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 26, "pad_token_id": 0,
        "rms_norm_eps": 1e-06, "tie_word_embeddings": false, "torch_dtype": "float16",
        "transformers_version": "4.30.0.dev0", "use_cache": true, "vocab_size": 32000})",
        // SmolLM2 135M
        R"({"architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 1,
        "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.041666666666666664,
        "intermediate_size": 1536, "is_llama_config": true, "max_position_embeddings": 8192, "mlp_bias": false,
        "model_type": "llama", "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3,
        "pad_token_id": 2, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": false, "rope_scaling": null,
        "rope_theta": 100000, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
        "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}}, "use_cache": true, "vocab_size": 49152})",
        // Mistral 7B v0.1
        R"({"architectures": ["MistralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
        "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 32768,
        "model_type": "mistral", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 4096, "tie_word_embeddings": false,
        "torch_dtype": "bfloat16", "transformers_version": "4.34.0.dev0", "use_cache": true, "vocab_size": 32000})",
        // DeepSeek-R1-Distill-Qwen 1.5B
        R"({"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
        "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 1536, "initializer_range": 0.02,
        "intermediate_size": 8960, "max_position_embeddings": 131072, "max_window_layers": 21, "model_type": "qwen2",
        "num_attention_heads": 12, "num_hidden_layers": 28, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
        "rope_theta": 10000, "sliding_window": 4096, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
        "use_cache": true, "use_mrope": false, "use_sliding_window": false, "vocab_size": 151936})",
        // Qwen2.5 7B Instruct 1M: chunks act beyond the positions that they extend
        R"({"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "hidden_act": "silu", "hidden_size": 3584,
        "dual_chunk_attention_config": {"chunk_size": 262144, "local_size": 8192,
        "original_max_position_embeddings": 262144}, "initializer_range": 0.02, "intermediate_size": 18944,
        "max_position_embeddings": 1010000, "max_window_layers": 28, "model_type": "qwen2", "num_attention_heads": 28,
        "num_hidden_layers": 28, "num_key_value_heads": 4, "rms_norm_eps": 1e-05, "rope_theta": 10000000.0,
        "sliding_window": 32768, "tie_word_embeddings": false, "use_sliding_window": false, "vocab_size": 152064})",
        // Qwen3 8B, as transformers 5 saves it
        R"({"architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 151643, "dtype": "bfloat16", "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu",
        "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 12288,
        "layer_types": ["full_attention", "full_attention"], "max_position_embeddings": 40960, "max_window_layers": 36,
        "model_type": "qwen3", "num_attention_heads": 32, "num_hidden_layers": 2, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06, "rope_parameters": {"rope_theta": 1000000, "rope_type": "default"},
        "sliding_window": null, "tie_word_embeddings": false, "use_cache": true, "use_sliding_window": false,
        "vocab_size": 151936})"};
    for (const char* const text : published) EXPECT_NO_THROW(ModelConfig::parse(text, "config.json")) << text;
}

}  // namespace
}  // namespace espalier
