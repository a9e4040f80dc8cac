// The table of a block's tensors, for every family.
#include "src/model/block_layout.h"

#include "tests/support/expect.h"
#include "tests/support/test_device.h"
#include "tests/support/tiny_model.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using namespace support;

std::map<std::string, std::vector<std::size_t>> shapes_of(const BlockLayout& layout) {
    std::map<std::string, std::vector<std::size_t>> shapes;
    for (const MatrixShape& matrix : layout.matrices())
        shapes[std::string(matrix.name)] = {matrix.rows, matrix.columns};
    for (const VectorShape& vector : layout.vectors()) shapes[vector.name] = {vector.size};
    return shapes;
}

TEST(BlockLayout, NamesAndShapesOfEveryFamily) {
    using Shapes = std::map<std::string, std::vector<std::size_t>>;
    // hidden 16, intermediate 24; 4 query heads of size 4 (Qwen3: 6); llama 4, the others 2 key/value heads.
    const Shapes mlp = {{"mlp.gate_proj", {24, 16}},
                        {"mlp.up_proj", {24, 16}},
                        {"mlp.down_proj", {16, 24}},
                        {"input_layernorm.weight", {16}},
                        {"post_attention_layernorm.weight", {16}}};
    const auto attention = [](std::size_t query, std::size_t key_value) {
        return Shapes{{"self_attn.q_proj", {query, 16}},
                      {"self_attn.k_proj", {key_value, 16}},
                      {"self_attn.v_proj", {key_value, 16}},
                      {"self_attn.o_proj", {16, query}}};
    };
    const Shapes qkv_bias = {
        {"self_attn.q_proj.bias", {16}}, {"self_attn.k_proj.bias", {8}}, {"self_attn.v_proj.bias", {8}}};
    const Shapes mlp_bias = {{"mlp.gate_proj.bias", {24}}, {"mlp.up_proj.bias", {24}}, {"mlp.down_proj.bias", {16}}};
    const Shapes o_bias = {{"self_attn.o_proj.bias", {16}}};
    const Shapes norms = {{"self_attn.q_norm.weight", {6}}, {"self_attn.k_norm.weight", {6}}};
    const Shapes wide_bias = {
        {"self_attn.q_proj.bias", {24}}, {"self_attn.k_proj.bias", {12}}, {"self_attn.v_proj.bias", {12}}};
    const std::map<std::string, std::vector<Shapes>> expected = {
        {"llama", {attention(16, 16)}},
        {"llama-grouped", {attention(16, 8)}},
        {"llama-bias", {attention(16, 8), qkv_bias, o_bias, mlp_bias}},
        {"mistral", {attention(16, 8)}},
        {"qwen2", {attention(16, 8), qkv_bias}},
        {"qwen3", {attention(24, 12), norms}},
        {"qwen3-bias", {attention(24, 12), norms, wide_bias, o_bias}},
        {"phi3", {attention(16, 8)}},
        {"phi3-mini", {attention(32, 16)}},
        {"olmo2",
         {attention(16, 8),
          {{"post_feedforward_layernorm.weight", {16}},
           {"self_attn.q_norm.weight", {16}},
           {"self_attn.k_norm.weight", {8}}}}},
        {"smollm3", {attention(16, 8)}},
        {"mistral3", {attention(16, 8)}}};
    for (const std::string& family : families) {
        Shapes shapes = mlp;
        if (family == "olmo2") shapes.erase("input_layernorm.weight");
        for (const Shapes& part : expected.at(family)) shapes.insert(part.begin(), part.end());
        EXPECT_EQ(shapes_of(BlockLayout(parse_tiny_config(family))), shapes) << family;
    }
}

TEST(BlockLayout, MatricesLieOneAfterAnother) {
    for (const std::string& family : families) {
        const BlockLayout layout(parse_tiny_config(family));
        std::size_t offset = 0;
        for (const MatrixShape& matrix : layout.matrices()) {
            EXPECT_EQ(matrix.offset, offset) << family;
            offset += matrix.rows * matrix.columns;
        }
        EXPECT_EQ(layout.weights(), offset) << family;
    }
}

TEST(BlockLayout, EveryLayerHasTheWidthOfItsInput) {
    for (const std::string& family : families) {
        const BlockLayout layout(parse_tiny_config(family));
        std::size_t offset = 0, fed = 0;
        for (const LinearInput input : layout.linear_inputs()) {
            EXPECT_EQ(layout.input(input).offset, offset);
            offset += layout.input(input).width;
            for (const LinearLayer layer : layout.layers_of(input)) {
                EXPECT_EQ(index_of(layer), fed++) << "layers of an input follow each other, in the inputs' order";
                EXPECT_EQ(layout.matrix(layer).columns, layout.input(input).width) << family;
            }
        }
        EXPECT_EQ(fed, layout.matrices().size());
        EXPECT_EQ(layout.total_input_width(), offset);
    }
    const BlockLayout layout(parse_tiny_config("llama"));
    EXPECT_EQ(layout.input_name(layout.attention.input), "self_attn.q_proj, k_proj and v_proj");
    EXPECT_EQ(layout.input_name(layout.attention.heads_output), "self_attn.o_proj");
    EXPECT_EQ(layout.input_name(layout.mlp.input), "mlp.gate_proj and up_proj");
    EXPECT_EQ(layout.input_name(layout.mlp.activation), "mlp.down_proj");
}

TEST(BlockLayout, StoredMatricesTileTheWeightsOfEveryFamily) {
    for (const std::string& family : families) {
        const BlockLayout layout(parse_tiny_config(family));
        std::size_t offset = 0;
        for (const StoredMatrix& stored : layout.stored_matrices()) {
            EXPECT_EQ(stored.offset, offset) << family;
            offset += stored.size();
        }
        EXPECT_EQ(offset, layout.weights()) << family;
        for (const MatrixShape& matrix : layout.matrices()) {
            const StoredMatrix& stored = layout.stored_matrices()[matrix.stored];
            EXPECT_EQ(stored.offset + matrix.stored_row * stored.columns, matrix.offset)
                << family << " " << matrix.name;
            EXPECT_LE(matrix.stored_row + matrix.rows, stored.rows);
        }
        const bool together = family.starts_with("phi3");
        EXPECT_EQ(layout.stored_matrices().size(), together ? 4U : 7U) << family;
        EXPECT_EQ(layout.weight_name(3, layout.attention.k),
                  layout.block_name(3) + (together ? ".self_attn.qkv_proj.weight" : ".self_attn.k_proj.weight"));
        EXPECT_EQ(layout.weight_name(0, layout.mlp.up),
                  layout.block_name(0) + (together ? ".mlp.gate_up_proj.weight" : ".mlp.up_proj.weight"));
    }
}

TEST(BlockLayout, GroupsMustDivideEveryWidth) {
    const BlockLayout layout(parse_tiny_config("llama"));
    EXPECT_NO_THROW(layout.check_group(4));
    EXPECT_NO_THROW(layout.check_group(8));
    expect_input_error({"--pattern", "16", "24", "mlp.down_proj"}, [&] { layout.check_group(16); });
    expect_input_error({"--pattern", "3", "16", "self_attn.q_proj"}, [&] { layout.check_group(3); });
}

TEST(BlockLayout, CheckpointNames) {
    const BlockLayout llama(parse_tiny_config("llama")), inside(parse_tiny_config("mistral3"));
    EXPECT_EQ(llama.tensor_name(42, "self_attn.q_proj.mask"), "model.layers.42.self_attn.q_proj.mask");
    EXPECT_EQ(llama.outer_name(OuterTensor::embedding), "model.embed_tokens.weight");
    EXPECT_EQ(llama.outer_name(OuterTensor::head), "lm_head.weight");
    EXPECT_EQ(inside.weight_name(0, inside.attention.q), "language_model.model.layers.0.self_attn.q_proj.weight");
    EXPECT_EQ(inside.outer_name(OuterTensor::final_norm), "language_model.model.norm.weight");
    EXPECT_EQ(inside.outer_name(OuterTensor::head), "language_model.lm_head.weight");
}

TEST(BlockTensor, MatricesAreViewsOfOneVector) {
    const auto device = make_test_device();
    const BlockLayout layout(parse_tiny_config("qwen3"));
    for (const DType dtype : {DType::f32, DType::u8, DType::bf16}) {
        const BlockTensor tensor(*device, layout, dtype, "test");
        EXPECT_EQ(tensor.all().size(), layout.weights());
        for (const LinearLayer layer : layout.linear_layers()) {
            const MatrixShape& shape = layout.matrix(layer);
            EXPECT_EQ(tensor.matrix(layer).data, tensor.all().data + shape.offset * bytes_of(dtype));
            EXPECT_EQ(tensor.matrix(layer).rows, shape.rows);
            EXPECT_EQ(tensor.matrix(layer).columns, shape.columns);
        }
    }
    EXPECT_TRUE(BlockTensor().empty());
}

TEST(BlockWeights, AbsentBiasesAreEmpty) {
    const auto device = make_test_device();
    const BlockLayout layout(parse_tiny_config("qwen2"));
    const BlockWeights weights(*device, layout, DType::f32);
    EXPECT_EQ(weights.projection(layout.attention.k).bias.size(), 8U);
    EXPECT_TRUE(weights.projection(layout.attention.o).bias.empty());
    EXPECT_EQ(weights.projection(layout.attention.o).weight.data, weights.matrices.matrix(layout.attention.o).data);
    EXPECT_FALSE(layout.attention.query_norm.has_value());
}

}  // namespace
}  // namespace espalier
