#include "src/finetune/gradient_pass.h"

namespace espalier {

void GradientPass::begin(const BlockWeights& weights, TensorView leaf) {
    weights_ = &weights;
    leaf_ = leaf;
}

TensorView GradientPass::in_leaf(TrainedKind kind, LinearLayer layer) const {
    return values_of(*layout().find(kind, layer), leaf_);
}

TensorView GradientPass::value_of(TrainedKind kind, LinearLayer layer) const {
    return values_.low_rank(weights_->block, *layout().find(kind, layer));
}

void GradientPass::scale(TensorView gradient) const {
    context_.device.scale_where_nonzero({}, static_cast<float>(context_.options.scale()), gradient);
}

bool GradientPass::consume_factors(LinearLayer layer, TensorView x, TensorView dy) {
    const TrainedKind kind = context_.options.low_rank() ? TrainedKind::lora_a : TrainedKind::weight;
    if (layout().find(kind, layer) == nullptr) return true;  // not trained: its gradient is not computed
    if (context_.options.train != TrainedPart::lora) return false;
    low_rank_from_factors(layer, x, dy);
    return true;
}

void GradientPass::low_rank_from_factors(LinearLayer layer, TensorView x, TensorView dy) {
    Device& device = context_.device;
    const std::size_t rank = context_.options.rank;
    const auto as_factor = [&](TensorView value) {
        Tensor factor = device.make_tensor(x.dtype, value.rows, value.columns, activations);
        device.convert(value, factor);
        return factor;
    };
    const Tensor a = as_factor(value_of(TrainedKind::lora_a, layer)),
                 b = as_factor(value_of(TrainedKind::lora_b, layer));
    const Tensor xa = device.make_tensor(x.dtype, x.rows, rank, activations);   // x A^T
    const Tensor dyb = device.make_tensor(x.dtype, x.rows, rank, activations);  // dy B
    device.linear(x, a, {}, xa);
    device.linear_input_gradient(dy, b, false, dyb);
    const auto into = [&](TensorView gradient) {
        return [&device, gradient](std::size_t row_begin, TensorView panel) {
            device.copy(panel, gradient.row_range(row_begin, row_begin + panel.rows));
        };
    };
    const TensorView db = in_leaf(TrainedKind::lora_b, layer), da = in_leaf(TrainedKind::lora_a, layer);
    device.linear_weight_gradient(dy, xa, into(db));
    device.linear_weight_gradient(dyb, x, into(da));
    scale(db);
    scale(da);
}

void GradientPass::consume(LinearLayer layer, std::size_t row_begin, TensorView panel) {
    const MatrixShape& matrix = context_.student.layout().matrix(layer);
    const TensorView gradient = context_.options.low_rank() ? student_.scratch(matrix.rows, matrix.columns)
                                                            : in_leaf(TrainedKind::weight, layer);
    context_.device.copy(panel, gradient.row_range(row_begin, row_begin + panel.rows));
}

void GradientPass::finished(LinearLayer layer) {
    if (context_.options.train == TrainedPart::masked && layout().find(TrainedKind::weight, layer) != nullptr)
        context_.device.scale_where_nonzero(weights_->matrices.matrix(layer), 1, in_leaf(TrainedKind::weight, layer));
    if (context_.options.train == TrainedPart::masked_lora && layout().find(TrainedKind::lora_a, layer) != nullptr)
        low_rank_from_gradient(layer);
}

void GradientPass::low_rank_from_gradient(LinearLayer layer) {
    Device& device = context_.device;
    const TensorView weight = weights_->matrices.matrix(layer),
                     gradient = student_.scratch(weight.rows, weight.columns);
    device.scale_where_nonzero(weight, static_cast<float>(context_.options.scale()), gradient);
    const TensorView da = in_leaf(TrainedKind::lora_a, layer);
    device.linear(gradient, value_of(TrainedKind::lora_a, layer), {}, in_leaf(TrainedKind::lora_b, layer));
    device.linear_weight_gradient(value_of(TrainedKind::lora_b, layer), gradient,
                                  [&device, da](std::size_t row_begin, TensorView panel) {
                                      device.copy(panel, da.row_range(row_begin, row_begin + panel.rows));
                                  });
}

TensorView GradientPass::gain_gradient(BlockVector norm) {
    const TrainedTensor* const tensor = layout().find(norm);
    return tensor == nullptr ? TensorView{} : values_of(*tensor, leaf_);
}

}  // namespace espalier
