// What the fields of config.json mean in each family.
#include "src/model/families/family.h"

#include "tests/support/expect.h"
#include "tests/support/tiny_model.h"

#include <gtest/gtest.h>

#include <cmath>

namespace espalier {
namespace {

using namespace support;

TEST(Family, IsFoundByItsModelType) {
    for (const std::string& family : families) {
        const ModelConfig config = parse_tiny_config(family);
        EXPECT_EQ(family_of(config.model_type).model_type, config.model_type);
        EXPECT_EQ(config.model_type, family.substr(0, family.find('-')));
    }
    EXPECT_EQ(find_family("gpt2"), nullptr);
    EXPECT_EQ(find_family(""), nullptr);
    expect_input_error({"config.json", "'model_type' is \"gpt2\"", "llama", "smollm3 and mistral3 are supported"},
                       [] { ModelConfig::parse(R"({"model_type": "gpt2"})", "config.json"); });
}

TEST(Phi3, RotatesAPartOfAHead) {
    const auto width = [](const Json& part) {
        return parse_tiny_config("phi3", {{"head_dim", 8}, {"partial_rotary_factor", part}}).blocks[1].rope->width;
    };
    EXPECT_EQ(width(nullptr), 8U);
    EXPECT_EQ(width(1.0), 8U);
    EXPECT_EQ(width(0.75), 6U);
    for (const double part : {0.1, 0.4, 1.5}) {  // 0, 3, 12
        const std::string found = "'partial_rotary_factor' is " + Json(part).dump();
        expect_input_error({found.c_str(), "8"}, [&] { width(part); });
    }
    const auto nested = [](const Json& rope, const Json& outer) {
        return parse_tiny_config("phi3", {{"head_dim", 8}, {"rope_parameters", rope}, {"partial_rotary_factor", outer}})
            .blocks[0]
            .rope->width;
    };
    const Json three_quarters = {{"rope_type", "default"}, {"partial_rotary_factor", 0.75}};
    EXPECT_EQ(nested(three_quarters, nullptr), 6U);
    EXPECT_EQ(nested(three_quarters, 0.75), 6U);
    EXPECT_EQ(nested({{"full_attention", three_quarters}}, nullptr), 6U);
    EXPECT_EQ(nested({{"rope_type", "default"}}, 0.5), 4U);
    expect_input_error({"rope_parameters", "'partial_rotary_factor' is 0.75", "differs"},
                       [&] { nested(three_quarters, 0.5); });
    expect_input_error({"partial_rotary_factor"}, [&] { width(1e300); });
    expect_input_error({"partial_rotary_factor", "of type llama"}, [] {
        parse_tiny_config("llama", {{"partial_rotary_factor", 0.5}});
    });
}

TEST(Phi3, LongRopeInTheSpellingsOfBothTransformers) {
    const RopeConfig rope = *parse_tiny_config("phi3-mini").blocks[0].rope;
    EXPECT_EQ(rope.scaling, RopeScaling::longrope);
    EXPECT_EQ(rope.original_max_positions, 32);
    EXPECT_EQ(rope.long_factors, (std::vector<double>{1, 4, 7.5}));
    EXPECT_DOUBLE_EQ(rope.attention_factor.value(), std::sqrt(1 + std::log(2.0) / std::log(32.0)));
    const Json parameters = {{"rope_type", "longrope"},         {"rope_theta", 10000.0},
                             {"partial_rotary_factor", 0.75},   {"original_max_position_embeddings", 32},
                             {"short_factor", {1.0, 1.5, 2.0}}, {"long_factor", {1.0, 4.0, 7.5}}};
    const Json changes = {{"rope_scaling", nullptr},
                          {"partial_rotary_factor", nullptr},
                          {"original_max_position_embeddings", nullptr},
                          {"rope_parameters", parameters}};
    EXPECT_EQ(*parse_tiny_config("phi3-mini", changes).blocks[0].rope, rope);
}

TEST(Phi3, LongRopesNumbersMustAgree) {
    const auto rope = [](const Json& scaling, const Json& original = nullptr) {
        Json all = {{"type", "longrope"}, {"short_factor", {1, 1.5, 2}}, {"long_factor", {1, 4, 7.5}}};
        for (const auto& [name, value] : scaling.items()) all[name] = value;
        return *parse_tiny_config("phi3-mini", {{"rope_scaling", all}, {"original_max_position_embeddings", original}})
                    .blocks[0]
                    .rope;
    };
    const RopeConfig by_factor = rope({{"factor", 8.0}});  // of max_position_embeddings, where no other length is said
    EXPECT_EQ(by_factor.original_max_positions, 64);
    EXPECT_DOUBLE_EQ(by_factor.attention_factor.value(), std::sqrt(1 + std::log(8.0) / std::log(64.0)));
    EXPECT_EQ(rope({{"factor", 2.0}}, 32).factor, 2);
    expect_input_error({"'factor' is 4.0"}, [&] { rope({{"factor", 4.0}}, 32); });
    expect_input_error({"original_max_position_embeddings", "differs"}, [&] {
        rope({{"original_max_position_embeddings", 16}}, 32);
    });
    expect_input_error({"short_factor", "1e-6"}, [&] { rope({{"short_factor", {1e-300, 1, 1}}}); });
    expect_input_error({"attention_factor"}, [&] { rope({{"attention_factor", 1e300}}); });
}

TEST(Phi3, EveryBlockHasTheWindow) {
    EXPECT_EQ(parse_tiny_config("phi3", {{"sliding_window", 32}}).smallest_window(), 32U);
    EXPECT_EQ(parse_tiny_config("phi3", {{"sliding_window", nullptr}}).smallest_window(), std::nullopt);
}

TEST(Olmo2, NormsComeAfterTheHalvesAndSpanAllHeads) {
    const ModelConfig config = parse_tiny_config("olmo2", {{"attention_bias", true}});
    for (const BlockSpecification& block : config.blocks) {
        EXPECT_EQ(block.norms, NormPlacement::after);
        EXPECT_EQ(block.head_norm, HeadNorm::all_heads);
    }
    EXPECT_TRUE(config.blocks.front().qkv_bias && config.blocks.front().output_bias);
    EXPECT_FALSE(config.blocks.front().mlp_bias || parse_tiny_config("olmo2").blocks.front().qkv_bias);
}

TEST(SmolLm3, SomeBlocksDoNotRotate) {
    const auto rotating = [](const Json& changes) {
        std::vector<bool> rotates;
        const Json no_interval = {{"no_rope_layer_interval", nullptr}, {"num_hidden_layers", 5}};
        Json all = no_interval;
        for (const auto& [name, value] : changes.items()) all[name] = value;
        for (const BlockSpecification& block : parse_tiny_config("smollm3", all).blocks) {
            rotates.push_back(block.rope != nullptr);
        }
        return rotates;
    };
    EXPECT_EQ(rotating(Json::object()), (std::vector<bool>{true, true, true, false, true}));
    EXPECT_EQ(rotating({{"no_rope_layer_interval", 2}}), (std::vector<bool>{true, false, true, false, true}));
    EXPECT_EQ(rotating({{"no_rope_layers", {0, 1, 1, 0, 1}}}), (std::vector<bool>{false, true, true, false, true}));
    EXPECT_EQ(rotating({{"no_rope_layers", {true, false, 1, 0, 1, 1, 1}}}),
              (std::vector<bool>{true, false, true, false, true}))
        << "of a model that was cut";
    expect_input_error({"'no_rope_layers' is [0,1]", "5 numbers"}, [&] { rotating({{"no_rope_layers", {0, 1}}}); });
    expect_input_error({"no_rope_layers", "0 or 1"}, [&] { rotating({{"no_rope_layers", {0, 1, 2, 1, 1}}}); });
}

TEST(SmolLm3, TiesItsHeadUnlessItSaysOtherwise) {
    EXPECT_TRUE(parse_tiny_config("smollm3", {{"tie_word_embeddings", nullptr}}).tied_head);
    EXPECT_FALSE(parse_tiny_config("smollm3", {{"tie_word_embeddings", false}}).tied_head);
    EXPECT_FALSE(parse_tiny_config("llama", {{"tie_word_embeddings", nullptr}}).tied_head);
    expect_input_error({"rope_theta", "SmolLM3"}, [] { parse_tiny_config("smollm3", {{"rope_theta", nullptr}}); });
    expect_input_error({"num_key_value_heads", "SmolLM3"}, [] {
        parse_tiny_config("smollm3", {{"num_key_value_heads", nullptr}});
    });
}

TEST(Mistral3, TheWholeModelSaysWhetherItsHeadIsTied) {
    Json config = tiny_config("mistral3");
    EXPECT_TRUE(ModelConfig::parse(config.dump(), "config.json").tied_head) << "transformers' default";
    config["tie_word_embeddings"] = false;
    EXPECT_FALSE(ModelConfig::parse(config.dump(), "config.json").tied_head);
    config["text_config"]["quantization_config"] = Json::object();
    expect_input_error({"text_config", "quantised"}, [&] { ModelConfig::parse(config.dump(), "config.json"); });
}

TEST(Mistral3, TheDecoderIsInsideOfTextConfig) {
    const ModelConfig config = parse_tiny_config("mistral3");
    EXPECT_EQ(config.hidden_size, 16U);
    EXPECT_EQ(config.blocks.size(), 2U);
    expect_input_error({"config.json: 'text_config' is missing", "object"},
                       [] { ModelConfig::parse(R"({"model_type": "mistral3"})", "config.json"); });
    expect_input_error({"config.json: text_config", "'hidden_size' is -1"}, [] {
        parse_tiny_config("mistral3", {{"hidden_size", -1}});
    });
    expect_input_error({"text_config", "'model_type' is \"llama\""}, [] {
        parse_tiny_config("mistral3", {{"model_type", "llama"}});
    });
    expect_input_error({"quantised"}, [] {
        ModelConfig::parse(R"({"model_type": "mistral3", "quantization_config": {}, "text_config": {}})",
                           "config.json");
    });
}

}  // namespace
}  // namespace espalier
