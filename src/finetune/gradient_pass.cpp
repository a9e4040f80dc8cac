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
    const bool drops = context_.options.dropout > 0;
    if (context_.options.train == TrainedPart::lora) {
        low_rank_from_factors(layer, drops ? dropout_.dropped(layer, x) : x, dy);
        return true;
    }
    if (!drops) return false;
    context_.device.linear_weight_gradient(
        dy, dropout_.dropped(layer, x),
        [&](std::size_t row_begin, TensorView panel) { consume(layer, row_begin, panel); });
    return true;
}

void GradientPass::low_rank_from_factors(LinearLayer layer, TensorView x, TensorView dy) {
    Device& device = context_.device;
    const std::size_t rank = context_.options.rank;
    const LowRankFactors factors = values_.factors(weights_->block, layer, x.dtype);
    const Tensor xa = device.make_tensor(x.dtype, x.rows, rank, activations);   // x A^T
    const Tensor dyb = device.make_tensor(x.dtype, x.rows, rank, activations);  // dy B
    device.linear(x, factors.a, {}, xa);
    device.linear_input_gradient(dy, factors.b, false, dyb);
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

// The zeros of the mask, while the panel is in a cache.
void GradientPass::consume(LinearLayer layer, std::size_t row_begin, TensorView panel) {
    Device& device = context_.device;
    const TensorView weight = weights_->matrices.matrix(layer);
    const std::size_t row_end = row_begin + panel.rows;
    const bool low_rank = context_.options.low_rank();
    device.scale_where_nonzero(weight.row_range(row_begin, row_end),
                               low_rank ? static_cast<float>(context_.options.scale()) : 1, panel);
    const TensorView gradient =
        low_rank ? student_.scratch(weight.rows, weight.columns) : in_leaf(TrainedKind::weight, layer);
    device.copy(panel, gradient.row_range(row_begin, row_end));
}

void GradientPass::finished(LinearLayer layer) {
    if (context_.options.train == TrainedPart::masked_lora && layout().find(TrainedKind::lora_a, layer) != nullptr)
        low_rank_from_gradient(layer);
}

void GradientPass::low_rank_from_gradient(LinearLayer layer) {
    Device& device = context_.device;
    const TensorView weight = weights_->matrices.matrix(layer),
                     gradient = student_.scratch(weight.rows, weight.columns);
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
