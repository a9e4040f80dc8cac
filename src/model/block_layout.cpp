#include "src/model/block_layout.h"

#include "src/base/error.h"

namespace espalier {

LinearInput input_of(LinearLayer layer) {
    switch (layer) {
        case LinearLayer::q_proj:
        case LinearLayer::k_proj:
        case LinearLayer::v_proj:
            return LinearInput::attention;
        case LinearLayer::o_proj:
            return LinearInput::attention_output;
        case LinearLayer::gate_proj:
        case LinearLayer::up_proj:
            return LinearInput::mlp;
        case LinearLayer::down_proj:
            return LinearInput::mlp_activation;
    }
    throw BugError("internal error: unknown linear layer");
}

BlockLayout::BlockLayout(const ModelConfig& config) {
    const std::size_t hidden = config.hidden_size, inter = config.intermediate_size;
    const std::size_t query = config.query_width(), key_value = config.key_value_width();
    matrices_ = {MatrixShape{"self_attn.q_proj", query, hidden, 0},
                 {"self_attn.k_proj", key_value, hidden, 0},
                 {"self_attn.v_proj", key_value, hidden, 0},
                 {"self_attn.o_proj", hidden, query, 0},
                 {"mlp.gate_proj", inter, hidden, 0},
                 {"mlp.up_proj", inter, hidden, 0},
                 {"mlp.down_proj", hidden, inter, 0}};
    for (MatrixShape& matrix : matrices_) {
        matrix.offset = weights_;
        weights_ += matrix.size();
    }
    input_widths_ = {hidden, query, hidden, inter};
    vectors_ = {{BlockVector::input_norm, "input_layernorm.weight", hidden},
                {BlockVector::post_attention_norm, "post_attention_layernorm.weight", hidden}};
    if (config.query_key_norm) {
        vectors_.push_back({BlockVector::query_norm, "self_attn.q_norm.weight", config.head_size});
        vectors_.push_back({BlockVector::key_norm, "self_attn.k_norm.weight", config.head_size});
    }
    const auto add_bias = [&](BlockVector vector, LinearLayer layer) {
        vectors_.push_back({vector, std::string(matrix(layer).name) + ".bias", matrix(layer).rows});
    };
    if (config.qkv_bias) {
        add_bias(BlockVector::q_bias, LinearLayer::q_proj);
        add_bias(BlockVector::k_bias, LinearLayer::k_proj);
        add_bias(BlockVector::v_bias, LinearLayer::v_proj);
    }
    if (config.output_bias) add_bias(BlockVector::o_bias, LinearLayer::o_proj);
    if (config.mlp_bias) {
        add_bias(BlockVector::gate_bias, LinearLayer::gate_proj);
        add_bias(BlockVector::up_bias, LinearLayer::up_proj);
        add_bias(BlockVector::down_bias, LinearLayer::down_proj);
    }
}

std::size_t BlockLayout::input_offset(LinearInput input) const {
    std::size_t offset = 0;
    for (std::size_t i = 0; i < index_of(input); ++i) offset += input_widths_[i];
    return offset;
}

void BlockLayout::check_group(std::size_t group) const {
    for (const MatrixShape& matrix : matrices_) {
        if (matrix.columns % group != 0) {
            throw InputError("--pattern with groups of " + std::to_string(group) + " does not divide the " +
                             std::to_string(matrix.columns) + " inputs of " + std::string(matrix.name) +
                             "; choose an M that does");
        }
    }
}

std::string checkpoint_name(std::size_t block, std::string_view name_in_block) {
    return "model.layers." + std::to_string(block) + "." + std::string(name_in_block);
}

}  // namespace espalier
