#pragma once
/// The one table of a decoder block's tensors: names, shapes, order, what feeds each matrix, and which are stored
/// together. A family builds it (src/model/families); loading, partition, pruning, gradients, writing, export and plan
/// walk it.

#include "src/base/dtype.h"
#include "src/model/model_config.h"

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace espalier {

/// A pruned matrix, an input of matrices, a vector that is never pruned: each by its place in the table.
enum class LinearLayer : std::size_t {};
enum class LinearInput : std::size_t {};
enum class BlockVector : std::size_t {};
template <typename Place>
requires std::is_enum_v<Place>
constexpr std::size_t index_of(Place place) {
    return static_cast<std::size_t>(place);
}

struct MatrixShape {
    std::string name;  ///< "self_attn.q_proj"
    LinearInput input{};
    std::size_t rows = 0, columns = 0;
    std::size_t offset = 0;  ///< of its first element in the block's weights, seen as one vector
    std::optional<BlockVector> bias = {};
    std::size_t stored = 0;      ///< of stored_matrices(), the one that holds it
    std::size_t stored_row = 0;  ///< its first row there
    std::size_t size() const { return rows * columns; }
};

/// The last part of a matrix's or module's name: "q_proj" of "self_attn.q_proj".
constexpr std::string_view short_name(std::string_view name) {
    return name.substr(name.rfind('.') + 1);
}

/// What several matrices of the same input are in files: one tensor, or one for each.
struct StoredMatrix {
    std::string name;  ///< of the tensor: "self_attn.q_proj.weight", "self_attn.qkv_proj.weight"
    std::string mask;  ///< what its mask is called: "self_attn.q_proj.mask"
    std::size_t rows = 0, columns = 0;
    std::size_t offset = 0;  ///< as of its first matrix; its rows follow each other in the block's weights, too
    std::size_t size() const { return rows * columns; }
};

struct InputShape {
    std::size_t width = 0;
    std::size_t offset = 0;  ///< of its first channel among those of all inputs
};

struct VectorShape {
    std::string name;  ///< "self_attn.q_proj.bias", "input_layernorm.weight"
    std::size_t size = 0;
    std::optional<LinearLayer> bias_of = {};  ///< otherwise it is a norm's gain
};

/// What the attention half of a block computes with.
struct AttentionTensors {
    LinearInput input{}, heads_output{};
    LinearLayer q{}, k{}, v{}, o{};
    std::optional<BlockVector> input_norm = {}, query_norm = {}, key_norm = {}, output_norm = {};
};

/// What its MLP half computes with.
struct MlpTensors {
    LinearInput input{}, activation{};
    LinearLayer gate{}, up{}, down{};
    std::optional<BlockVector> input_norm = {}, output_norm = {};
};

/// The tensors outside of the blocks.
enum class OuterTensor { embedding, final_norm, head };

/// What a family calls its blocks, of which a number follows, and the tensors outside of them.
struct ModelNames {
    std::string blocks, embedding, final_norm, head;
};

/// Shapes of one block of a model; the same for all its blocks.
class BlockLayout {
  public:
    /// The table of the model's family.
    explicit BlockLayout(const ModelConfig& config);
    /// An empty one, for a family to fill.
    explicit BlockLayout(ModelNames names) : names_(std::move(names)) {}

    LinearInput add_input(std::size_t width);
    LinearLayer add_matrix(std::string name, std::size_t rows, LinearInput input);
    BlockVector add_norm(std::string name, std::size_t size);
    void add_bias(LinearLayer layer);
    /// The matrices first … last, which share an input, are one tensor in files.
    void store_together(const std::string& name, LinearLayer first, LinearLayer last);
    AttentionTensors attention;
    MlpTensors mlp;

    const MatrixShape& matrix(LinearLayer layer) const { return matrices_[index_of(layer)]; }
    const std::vector<MatrixShape>& matrices() const { return matrices_; }
    const std::vector<LinearLayer>& linear_layers() const { return layers_; }
    /// In which a backward pass finishes the matrices' gradients: from the last to the first.
    std::vector<LinearLayer> backward_order() const { return {layers_.rbegin(), layers_.rend()}; }
    const std::vector<StoredMatrix>& stored_matrices() const { return stored_; }
    /// Only the vectors that this model has.
    const std::vector<VectorShape>& vectors() const { return vectors_; }
    /// Elements of all matrices together.
    std::size_t weights() const { return weights_; }
    const std::vector<LinearInput>& linear_inputs() const { return input_places_; }
    const InputShape& input(LinearInput input) const { return inputs_[index_of(input)]; }
    LinearInput last_input() const { return input_places_.back(); }
    std::size_t total_input_width() const { return inputs_.back().offset + inputs_.back().width; }
    /// The matrices that `input` feeds.
    std::vector<LinearLayer> layers_of(LinearInput input) const;

    /// What an input feeds: "self_attn.q_proj, k_proj and v_proj".
    std::string input_name(LinearInput input) const;

    /// "model.layers.42".
    std::string block_name(std::size_t block) const { return names_.blocks + std::to_string(block); }
    /// "model.layers.42.self_attn.q_proj.weight" from block index and a name in the block.
    std::string tensor_name(std::size_t block, std::string_view name_in_block) const;
    /// Of the tensor that holds the matrix.
    std::string weight_name(std::size_t block, LinearLayer layer) const;
    /// "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight".
    std::string outer_name(OuterTensor tensor) const;

    /// Throws InputError unless `group` of an N:M pattern divides every matrix's width.
    void check_group(std::size_t group) const;

  private:
    ModelNames names_;
    std::vector<InputShape> inputs_;
    std::vector<LinearInput> input_places_;
    std::vector<MatrixShape> matrices_;
    std::vector<LinearLayer> layers_;
    std::vector<StoredMatrix> stored_;
    std::vector<VectorShape> vectors_;
    std::size_t weights_ = 0;
};

/// Some rows of one matrix.
struct RowSlice {
    LinearLayer layer{};
    std::size_t row_begin = 0;
    std::size_t row_end = 0;

    std::size_t rows() const { return row_end - row_begin; }
};

}  // namespace espalier
