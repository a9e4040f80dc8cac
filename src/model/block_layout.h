#pragma once
/// The one table of a decoder block's tensors: names, shapes and order. Loading, partitioning, pruning, writing and
/// export all walk it.

#include "src/base/dtype.h"
#include "src/model/model_config.h"

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace espalier {

/// The seven pruned matrices in the order of the block.
enum class LinearLayer : std::size_t { q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj };
inline constexpr std::size_t linear_layers = 7;
inline constexpr std::array<LinearLayer, linear_layers> all_linear_layers = {
    LinearLayer::q_proj,    LinearLayer::k_proj,  LinearLayer::v_proj,   LinearLayer::o_proj,
    LinearLayer::gate_proj, LinearLayer::up_proj, LinearLayer::down_proj};

/// The four inputs that feed the seven: q, k, v share one, gate and up share one.
enum class LinearInput : std::size_t { attention, attention_output, mlp, mlp_activation };
inline constexpr std::size_t linear_inputs = 4;
LinearInput input_of(LinearLayer layer);
constexpr std::size_t index_of(LinearLayer layer) {
    return static_cast<std::size_t>(layer);
}
constexpr std::size_t index_of(LinearInput input) {
    return static_cast<std::size_t>(input);
}

/// Vectors of a block that are never pruned.
enum class BlockVector : std::size_t {
    input_norm,
    post_attention_norm,
    query_norm,
    key_norm,
    q_bias,
    k_bias,
    v_bias,
    o_bias,
    gate_bias,
    up_bias,
    down_bias
};
inline constexpr std::size_t block_vectors = 11;

struct MatrixShape {
    std::string_view name;  ///< "self_attn.q_proj"
    std::size_t rows = 0, columns = 0;
    std::size_t offset = 0;  ///< of its first element in the block's weights, seen as one vector
    std::size_t size() const { return rows * columns; }
};

struct VectorShape {
    BlockVector vector;
    std::string name;  ///< "self_attn.q_proj.bias", "input_layernorm.weight"
    std::size_t size = 0;
};

/// Shapes of one block of a model; the same for all its blocks.
class BlockLayout {
  public:
    explicit BlockLayout(const ModelConfig& config);

    const MatrixShape& matrix(LinearLayer layer) const { return matrices_[index_of(layer)]; }
    const std::array<MatrixShape, linear_layers>& matrices() const { return matrices_; }
    /// Only the vectors that this model has.
    const std::vector<VectorShape>& vectors() const { return vectors_; }
    /// Elements of the seven matrices together.
    std::size_t weights() const { return weights_; }
    /// Width of each of the four inputs, and their sum.
    std::size_t input_width(LinearInput input) const { return input_widths_[index_of(input)]; }
    std::size_t input_offset(LinearInput input) const;
    std::size_t total_input_width() const { return input_offset(LinearInput::mlp_activation) + input_widths_[3]; }

    /// Throws InputError unless `group` of an N:M pattern divides every matrix's width.
    void check_group(std::size_t group) const;

  private:
    std::array<MatrixShape, linear_layers> matrices_;
    std::vector<VectorShape> vectors_;
    std::array<std::size_t, linear_inputs> input_widths_{};
    std::size_t weights_ = 0;
};

/// Some rows of one matrix.
struct RowSlice {
    LinearLayer layer = LinearLayer::q_proj;
    std::size_t row_begin = 0;
    std::size_t row_end = 0;

    std::size_t rows() const { return row_end - row_begin; }
};

/// "model.layers.42.self_attn.q_proj.weight" from block index and a name of the layout.
std::string checkpoint_name(std::size_t block, std::string_view name_in_block);

}  // namespace espalier
