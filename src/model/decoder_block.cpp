#include "src/model/decoder_block.h"

namespace espalier {

namespace {

SharedGradients make_shared_gradients(Device& device, const ModelConfig& config, const PassShape& shape) {
    SharedGradients shared;
    if (!shape.keeps_activations()) return shared;
    shared.input = device.make_tensor(DType::f32, shape.rows, config.hidden_size, activations);
    if (device.compute_dtype(DType::bf16) != DType::f32) {
        shared.rounded = device.make_tensor(DType::bf16, shape.rows, config.hidden_size, activations);
    }
    return shared;
}

}  // namespace

DecoderBlock::DecoderBlock(Device& device, const ModelConfig& config, const PassShape& shape)
    : layout_(config),
      shape_(shape),
      shared_(make_shared_gradients(device, config, shape_)),
      hidden_(device.make_tensor(DType::f32, shape_.rows, config.hidden_size, activations)),
      attention_(device, config, layout_.attention, shape_, shared_),
      mlp_(device, config, layout_.mlp, shape_, shared_) {}

TensorView DecoderBlock::compute_inputs(const BlockWeights& weights, TensorView x, std::span<const RowSegment> segments,
                                        LinearInput last, LinearInputObserver* observer) {
    const TensorView hidden = hidden_.view().row_range(0, x.rows);
    if (attention_.forward(weights, x, hidden, segments, last, observer))
        mlp_.compute_inputs(weights, hidden, last, observer);
    return hidden;
}

void DecoderBlock::observe_inputs(const BlockWeights& weights, TensorView x, LinearInput last,
                                  LinearInputObserver& observer) {
    const RowSegment sample = {x.rows};
    compute_inputs(weights, x, {&sample, 1}, last, &observer);
}

void DecoderBlock::forward(const BlockWeights& weights, TensorView x, TensorView y, LinearInputObserver* observer) {
    const RowSegment sample = {x.rows};
    const TensorView hidden = compute_inputs(weights, x, {&sample, 1}, layout_.last_input(), observer);
    mlp_.finish(weights, hidden, y);
}

void DecoderBlock::forward(const BlockWeights& weights, TensorView x, TensorView y,
                           std::span<const RowSegment> segments) {
    const TensorView hidden = compute_inputs(weights, x, segments, layout_.last_input(), nullptr);
    mlp_.finish(weights, hidden, y);
}

void DecoderBlock::decode(const BlockWeights& weights, TensorView x, TensorView y, const KeyValueCache& cache,
                          std::size_t position) {
    const TensorView hidden = hidden_.view().row_range(0, x.rows);
    attention_.decode(weights, x, hidden, cache, position);
    mlp_.compute_inputs(weights, hidden, layout_.last_input(), nullptr);
    mlp_.finish(weights, hidden, y);
}

void DecoderBlock::recompute(const BlockWeights& weights, TensorView x, TensorView y,
                             std::span<const RowSegment> segments) {
    const TensorView hidden = compute_inputs(weights, x, segments, layout_.last_input(), nullptr);
    if (layout_.mlp.output_norm) mlp_.finish(weights, hidden, y);
}

void DecoderBlock::backward(const BlockWeights& weights, TensorView dy, TensorView x, WeightGradientSink& sink) {
    require(shape_.keeps_activations(), "a decoder block made for backward passes");
    mlp_.backward(weights, dy, hidden_.view().row_range(0, dy.rows), sink);
    attention_.backward(weights, dy, x, sink);
}

}  // namespace espalier
