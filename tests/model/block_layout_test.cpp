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
        {"qwen3-bias", {attention(24, 12), norms, wide_bias, o_bias}}};
    for (const std::string& family : families) {
        Shapes shapes = mlp;
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
        std::size_t offset = 0;
        for (std::size_t i = 0; i < linear_inputs; ++i) {
            EXPECT_EQ(layout.input_offset(static_cast<LinearInput>(i)), offset);
            offset += layout.input_width(static_cast<LinearInput>(i));
        }
        EXPECT_EQ(layout.total_input_width(), offset);
        for (const LinearLayer layer : all_linear_layers) {
            EXPECT_EQ(layout.matrix(layer).columns, layout.input_width(input_of(layer))) << family;
        }
    }
    EXPECT_EQ(input_of(LinearLayer::k_proj), LinearInput::attention);
    EXPECT_EQ(input_of(LinearLayer::o_proj), LinearInput::attention_output);
    EXPECT_EQ(input_of(LinearLayer::up_proj), LinearInput::mlp);
    EXPECT_EQ(input_of(LinearLayer::down_proj), LinearInput::mlp_activation);
}

TEST(BlockLayout, GroupsMustDivideEveryWidth) {
    const BlockLayout layout(parse_tiny_config("llama"));
    EXPECT_NO_THROW(layout.check_group(4));
    EXPECT_NO_THROW(layout.check_group(8));
    expect_input_error({"--pattern", "16", "24", "mlp.down_proj"}, [&] { layout.check_group(16); });
    expect_input_error({"--pattern", "3", "16", "self_attn.q_proj"}, [&] { layout.check_group(3); });
}

TEST(BlockLayout, CheckpointNames) {
    EXPECT_EQ(checkpoint_name(42, "self_attn.q_proj.weight"), "model.layers.42.self_attn.q_proj.weight");
}

TEST(BlockTensor, MatricesAreViewsOfOneVector) {
    const auto device = make_test_device();
    const BlockLayout layout(parse_tiny_config("qwen3"));
    for (const DType dtype : {DType::f32, DType::u8, DType::bf16}) {
        const BlockTensor tensor(*device, layout, dtype);
        EXPECT_EQ(tensor.all().size(), layout.weights());
        for (const LinearLayer layer : all_linear_layers) {
            const MatrixShape& shape = layout.matrix(layer);
            EXPECT_EQ(tensor.matrix(layer).data, tensor.all().data + shape.offset * bytes_of(dtype));
            EXPECT_EQ(tensor.matrix(layer).rows, shape.rows);
            EXPECT_EQ(tensor.matrix(layer).columns, shape.columns);
        }
    }
    EXPECT_TRUE(BlockTensor().empty());
}

TEST(BlockWeights, AbsentVectorsAreEmpty) {
    const auto device = make_test_device();
    const BlockWeights weights(*device, BlockLayout(parse_tiny_config("qwen2")), DType::f32);
    EXPECT_FALSE(weights.vector(BlockVector::k_bias).empty());
    EXPECT_TRUE(weights.vector(BlockVector::o_bias).empty());
    EXPECT_TRUE(weights.vector(BlockVector::query_norm).empty());
}

}  // namespace
}  // namespace espalier
