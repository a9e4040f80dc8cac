#include "src/model/block_half.h"

#include <vector>

namespace espalier {

void BlockHalf::begin_pass(const BlockWeights& weights, std::size_t rows) {
    require(rows <= shape_.rows, "a pass of at most the rows that were said");
    dtype_ = weights.dtype();
    rows_ = rows;
}

TensorView BlockHalf::as_factor(TensorView gradient) const {
    if (dtype_ == DType::f32) return gradient;
    const TensorView rounded = now(shared_.rounded);
    device_.convert(gradient, rounded);
    return rounded;
}

void BlockHalf::project(const BlockWeights& weights, LinearLayer layer, TensorView x, TensorView residual,
                        TensorView y) const {
    const Projection projection = weights.projection(layer);
    device_.linear(x, projection.weight, residual, y);
    if (!projection.bias.empty()) device_.add_bias(projection.bias, y);
    if (term_ != nullptr) term_->add(layer, x, y);
}

void BlockHalf::project_gradient(const BlockWeights& weights, LinearLayer layer, TensorView dy, bool accumulate,
                                 TensorView dx) const {
    device_.linear_input_gradient(dy, weights.projection(layer).weight, accumulate, dx);
    if (term_ != nullptr) term_->add_input_gradient(layer, dy, dx);
}

void BlockHalf::emit(WeightGradientSink& sink, TensorView x, std::initializer_list<LayerGradient> gradients) const {
    std::vector<WeightGradient> requests;
    const auto hand_out = [&] {
        if (!requests.empty()) device_.linear_weight_gradients(x, requests);
        requests.clear();
    };
    for (const auto& [layer, dy] : gradients) {
        if (sink.consume_factors(layer, x, dy)) {
            hand_out();  // layers are finished in their order
            sink.finished(layer);
            continue;
        }
        requests.push_back(
            {dy,
             [&sink, layer = layer](std::size_t row_begin, TensorView panel) { sink.consume(layer, row_begin, panel); },
             [&sink, layer = layer] { sink.finished(layer); }});
    }
    hand_out();
}

void BlockHalf::emit_gain(WeightGradientSink& sink, BlockVector norm, TensorView x, TensorView inverse_rms,
                          TensorView dy) const {
    const TensorView gradient = sink.gain_gradient(norm);
    if (!gradient.empty()) device_.rms_norm_gain_gradient(x, inverse_rms, dy, gradient);
}

}  // namespace espalier
