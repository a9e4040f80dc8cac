#include "src/model/block_layout.h"

#include "src/base/error.h"
#include "src/model/families/family.h"

namespace espalier {

BlockLayout::BlockLayout(const ModelConfig& config) : BlockLayout(family_of(config.model_type).layout(config)) {}

LinearInput BlockLayout::add_input(std::size_t width) {
    inputs_.push_back({width, inputs_.empty() ? 0 : total_input_width()});
    input_places_.push_back(LinearInput{inputs_.size() - 1});
    return last_input();
}

LinearLayer BlockLayout::add_matrix(std::string name, std::size_t rows, LinearInput input) {
    const std::size_t columns = inputs_[index_of(input)].width;
    stored_.push_back({name + ".weight", name + ".mask", rows, columns, weights_});
    matrices_.push_back({std::move(name), input, rows, columns, weights_, {}, stored_.size() - 1, 0});
    weights_ += rows * columns;
    layers_.push_back(LinearLayer{matrices_.size() - 1});
    return layers_.back();
}

BlockVector BlockLayout::add_norm(std::string name, std::size_t size) {
    vectors_.push_back({std::move(name), size});
    return BlockVector{vectors_.size() - 1};
}

void BlockLayout::add_bias(LinearLayer layer) {
    MatrixShape& matrix = matrices_[index_of(layer)];
    matrix.bias = BlockVector{vectors_.size()};
    vectors_.push_back({matrix.name + ".bias", matrix.rows, layer});
}

void BlockLayout::store_together(const std::string& name, LinearLayer first, LinearLayer last) {
    const std::size_t begin = index_of(first), end = index_of(last) + 1, place = matrix(first).stored;
    StoredMatrix& together = stored_[place];
    together.name = name + ".weight";
    together.mask = name + ".mask";
    for (std::size_t m = begin; m < end; ++m) {
        require(
            matrices_[m].input == matrix(first).input && matrices_[m].stored == place + m - begin && !matrices_[m].bias,
            "matrices of one input and without biases, each stored by itself");
        matrices_[m].stored = place;
        matrices_[m].stored_row = m == begin ? 0 : together.rows;
        together.rows = matrices_[m].stored_row + matrices_[m].rows;
    }
    const std::size_t fewer = end - begin - 1;
    const auto after = stored_.begin() + static_cast<std::ptrdiff_t>(place) + 1;
    stored_.erase(after, after + static_cast<std::ptrdiff_t>(fewer));
    for (std::size_t m = end; m < matrices_.size(); ++m) matrices_[m].stored -= fewer;
}

std::vector<LinearLayer> BlockLayout::layers_of(LinearInput input) const {
    std::vector<LinearLayer> layers;
    for (const LinearLayer layer : linear_layers()) {
        if (matrix(layer).input == input) layers.push_back(layer);
    }
    return layers;
}

std::string BlockLayout::input_name(LinearInput input) const {
    const std::vector<LinearLayer> layers = layers_of(input);
    std::string text = matrix(layers.front()).name;
    for (std::size_t i = 1; i < layers.size(); ++i) {
        const std::string& name = matrix(layers[i]).name;
        text += (i + 1 == layers.size() ? " and " : ", ") + name.substr(name.rfind('.') + 1);
    }
    return text;
}

std::string BlockLayout::tensor_name(std::size_t block, std::string_view name_in_block) const {
    return block_name(block) + "." + std::string(name_in_block);
}

std::string BlockLayout::weight_name(std::size_t block, LinearLayer layer) const {
    return tensor_name(block, stored_[matrix(layer).stored].name);
}

std::string BlockLayout::outer_name(OuterTensor tensor) const {
    switch (tensor) {
        case OuterTensor::embedding:
            return names_.embedding;
        case OuterTensor::final_norm:
            return names_.final_norm;
        case OuterTensor::head:
            return names_.head;
    }
    throw BugError("internal error: unknown outer tensor");
}

void BlockLayout::check_group(std::size_t group) const {
    for (const MatrixShape& matrix : matrices_) {
        if (matrix.columns % group != 0) {
            throw InputError("--pattern with groups of " + std::to_string(group) + " does not divide the " +
                             std::to_string(matrix.columns) + " inputs of " + matrix.name + "; choose an M that does");
        }
    }
}

}  // namespace espalier
