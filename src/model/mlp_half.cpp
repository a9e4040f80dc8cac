#include "src/model/mlp_half.h"

namespace espalier {

MlpHalf::MlpHalf(Device& device, const ModelConfig& config, const MlpTensors& tensors, const PassShape& shape,
                 const SharedGradients& shared)
    : BlockHalf(device, config, shape, shared), tensors_(tensors) {
    const std::size_t hidden = config.hidden_size, intermediate = config.intermediate_size, rows = shape.rows;
    normed_ = make_factor(rows, hidden);
    gate_ = make_factor(rows, intermediate);
    up_ = make_factor(rows, intermediate);
    activation_ = make_factor(rows, intermediate);
    if (tensors.input_norm) inverse_rms_ = make(1, rows);
    if (tensors.output_norm) {
        output_ = make(rows, hidden);
        inverse_rms_output_ = make(1, rows);
    }
    if (shape.keeps_activations()) dactivation_ = make_factor(rows, intermediate);
}

void MlpHalf::compute_inputs(const BlockWeights& weights, TensorView h, LinearInput last,
                             LinearInputObserver* observer) {
    begin_pass(weights, h.rows);
    const TensorView normed = now(normed_), gate = now(gate_), up = now(up_), activation = now(activation_);
    if (tensors_.input_norm)
        device_.rms_norm(h, weights.vector(*tensors_.input_norm), epsilon_, normed, inverse_rms_);
    else
        device_.convert(h, normed);
    if (observer != nullptr) observer->observe(tensors_.input, normed);
    if (last == tensors_.input) return;
    project(weights, tensors_.gate, normed, {}, gate);
    project(weights, tensors_.up, normed, {}, up);
    device_.silu_multiply(gate, up, activation);
    if (observer != nullptr) observer->observe(tensors_.activation, activation);
}

void MlpHalf::finish(const BlockWeights& weights, TensorView h, TensorView y) {
    if (!tensors_.output_norm) return project(weights, tensors_.down, now(activation_), h, y);
    project(weights, tensors_.down, now(activation_), {}, floats(output_));
    device_.rms_norm(floats(output_), weights.vector(*tensors_.output_norm), epsilon_, y, inverse_rms_output_);
    device_.add(h, y);
}

void MlpHalf::backward(const BlockWeights& weights, TensorView dy, TensorView h, WeightGradientSink& sink) {
    const TensorView gate = now(gate_), up = now(up_), dactivation = now(dactivation_), dinput = floats(shared_.input);
    TensorView doutput = dy;
    if (tensors_.output_norm) {
        doutput = dinput;
        emit_gain(sink, *tensors_.output_norm, floats(output_), inverse_rms_output_, dy);
        device_.rms_norm_backward(floats(output_), weights.vector(*tensors_.output_norm), inverse_rms_output_, dy,
                                  false, doutput);
    }
    // A layer's input gradient is taken before its weight gradient is handed out: the sink may change the weight at
    // once.
    const TensorView factor = as_factor(doutput);
    project_gradient(weights, tensors_.down, factor, false, dactivation);
    emit(sink, now(activation_), {{tensors_.down, factor}});
    device_.silu_multiply_backward(dactivation, gate, up);
    project_gradient(weights, tensors_.up, up, false, dinput);
    project_gradient(weights, tensors_.gate, gate, true, dinput);
    emit(sink, now(normed_), {{tensors_.up, up}, {tensors_.gate, gate}});
    // dy becomes the gradient of the hidden states between the two halves: residual path plus MLP path.
    if (tensors_.input_norm) {
        emit_gain(sink, *tensors_.input_norm, h, inverse_rms_, dinput);
        device_.rms_norm_backward(h, weights.vector(*tensors_.input_norm), inverse_rms_, dinput, true, dy);
    } else {
        device_.add(dinput, dy);
    }
}

}  // namespace espalier
