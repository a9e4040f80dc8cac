#include "src/model/decoder_block.h"

#include "src/model/rope_table.h"

namespace espalier {

DecoderBlock::DecoderBlock(Device& device, const ModelConfig& config, std::size_t tokens, Passes passes)
    : device_(device),
      shape_{config.query_heads, config.key_value_heads, config.head_size},
      epsilon_(config.rms_norm_epsilon),
      query_key_norm_(config.query_key_norm),
      keeps_activations_(passes == Passes::forward_and_backward) {
    const std::size_t hidden = config.hidden_size, inter = config.intermediate_size;
    const std::size_t query = config.query_width(), key_value = config.key_value_width();
    const auto make = [&](std::size_t rows, std::size_t columns) {
        return device.make_tensor(DType::f32, rows, columns);
    };
    const RopeTable table = make_rope_table(config.rope, config.head_size, tokens);
    cosine_ = make(tokens, config.head_size / 2);
    sine_ = make(tokens, config.head_size / 2);
    device.copy_from_host(table.cosine.data(), cosine_);
    device.copy_from_host(table.sine.data(), sine_);

    kept_.normed = make(tokens, hidden);
    kept_.q = make(tokens, query);
    kept_.k = make(tokens, key_value);
    kept_.v = make(tokens, key_value);
    kept_.attention_out = make(tokens, query);
    kept_.log_sum_exp = make(config.query_heads, tokens);
    kept_.hidden = make(tokens, hidden);
    kept_.normed_hidden = make(tokens, hidden);
    kept_.gate = make(tokens, inter);
    kept_.up = make(tokens, inter);
    kept_.activation = make(tokens, inter);
    kept_.inverse_rms = make(1, tokens);
    kept_.inverse_rms_hidden = make(1, tokens);
    if (query_key_norm_) {
        kept_.q_projected = make(tokens, query);
        kept_.k_projected = make(tokens, key_value);
        kept_.inverse_rms_q = make(1, tokens * config.query_heads);
        kept_.inverse_rms_k = make(1, tokens * config.key_value_heads);
    }
    if (!keeps_activations_) return;
    gradients_.activation = make(tokens, inter);
    gradients_.normed = make(tokens, hidden);
    gradients_.attention_out = make(tokens, query);
    gradients_.q = make(tokens, query);
    gradients_.k = make(tokens, key_value);
    gradients_.v = make(tokens, key_value);
}

void DecoderBlock::project(const BlockWeights& weights, LinearLayer layer, BlockVector bias, TensorView x,
                           TensorView y) {
    device_.linear(x, weights.matrices.matrix(layer), false, y);
    if (!weights.vector(bias).empty()) device_.add_bias(weights.vector(bias), y);
}

void DecoderBlock::normalise_heads(const BlockWeights& weights, BlockVector norm, TensorView projected,
                                   TensorView inverse_rms, TensorView heads) {
    const std::size_t rows = projected.size() / shape_.head_size;
    device_.rms_norm(projected.reshaped(rows, shape_.head_size), weights.vector(norm), epsilon_,
                     heads.reshaped(rows, shape_.head_size), inverse_rms);
}

void DecoderBlock::attend(const BlockWeights& weights) {
    const TensorView q = query_key_norm_ ? kept_.q_projected.view() : kept_.q.view();
    const TensorView k = query_key_norm_ ? kept_.k_projected.view() : kept_.k.view();
    project(weights, LinearLayer::q_proj, BlockVector::q_bias, kept_.normed, q);
    project(weights, LinearLayer::k_proj, BlockVector::k_bias, kept_.normed, k);
    project(weights, LinearLayer::v_proj, BlockVector::v_bias, kept_.normed, kept_.v);
    if (query_key_norm_) {
        normalise_heads(weights, BlockVector::query_norm, q, kept_.inverse_rms_q, kept_.q);
        normalise_heads(weights, BlockVector::key_norm, k, kept_.inverse_rms_k, kept_.k);
    }
    device_.apply_rope(kept_.q, shape_.head_size, cosine_, sine_, false);
    device_.apply_rope(kept_.k, shape_.head_size, cosine_, sine_, false);
    device_.attention(kept_.q, kept_.k, kept_.v, shape_, kept_.attention_out, kept_.log_sum_exp);
}

void DecoderBlock::add_projection(const BlockWeights& weights, LinearLayer layer, BlockVector bias, TensorView x,
                                  TensorView residual, TensorView y) {
    device_.copy(residual, y);
    device_.linear(x, weights.matrices.matrix(layer), true, y);
    if (!weights.vector(bias).empty()) device_.add_bias(weights.vector(bias), y);
}

void DecoderBlock::compute_inputs(const BlockWeights& weights, TensorView x, LinearInput last,
                                  LinearInputObserver* observer) {
    const auto is_last = [&](LinearInput input, TensorView value) {
        if (observer != nullptr) observer->observe(input, value);
        return input == last;
    };
    device_.rms_norm(x, weights.vector(BlockVector::input_norm), epsilon_, kept_.normed, kept_.inverse_rms);
    if (is_last(LinearInput::attention, kept_.normed)) return;
    attend(weights);
    if (is_last(LinearInput::attention_output, kept_.attention_out)) return;
    add_projection(weights, LinearLayer::o_proj, BlockVector::o_bias, kept_.attention_out, x, kept_.hidden);
    device_.rms_norm(kept_.hidden, weights.vector(BlockVector::post_attention_norm), epsilon_, kept_.normed_hidden,
                     kept_.inverse_rms_hidden);
    if (is_last(LinearInput::mlp, kept_.normed_hidden)) return;
    project(weights, LinearLayer::gate_proj, BlockVector::gate_bias, kept_.normed_hidden, kept_.gate);
    project(weights, LinearLayer::up_proj, BlockVector::up_bias, kept_.normed_hidden, kept_.up);
    device_.silu_multiply(kept_.gate, kept_.up, kept_.activation);
    if (observer != nullptr) observer->observe(LinearInput::mlp_activation, kept_.activation);
}

void DecoderBlock::observe_inputs(const BlockWeights& weights, TensorView x, LinearInput last,
                                  LinearInputObserver& observer) {
    compute_inputs(weights, x, last, &observer);
}

void DecoderBlock::forward(const BlockWeights& weights, TensorView x, TensorView y, LinearInputObserver* observer) {
    compute_inputs(weights, x, LinearInput::mlp_activation, observer);
    add_projection(weights, LinearLayer::down_proj, BlockVector::down_bias, kept_.activation, kept_.hidden, y);
}

void DecoderBlock::emit(WeightGradientSink& sink, LinearLayer layer, TensorView dy, TensorView x) {
    device_.linear_weight_gradient(
        dy, x, [&](std::size_t row_begin, TensorView panel) { sink.consume(layer, row_begin, panel); });
    sink.finished(layer);
}

void DecoderBlock::backward(const BlockWeights& weights, TensorView dy, WeightGradientSink& sink) {
    require(keeps_activations_, "a decoder block made for backward passes");
    const auto weight = [&](LinearLayer layer) { return weights.matrices.matrix(layer); };
    // A layer's input gradient is taken before its weight gradient is handed out: the sink may change the weight at
    // once.
    device_.linear_input_gradient(dy, weight(LinearLayer::down_proj), false, gradients_.activation);
    emit(sink, LinearLayer::down_proj, dy, kept_.activation);
    device_.silu_multiply_backward(gradients_.activation, kept_.gate, kept_.up);
    device_.linear_input_gradient(kept_.up, weight(LinearLayer::up_proj), false, gradients_.normed);
    device_.linear_input_gradient(kept_.gate, weight(LinearLayer::gate_proj), true, gradients_.normed);
    emit(sink, LinearLayer::up_proj, kept_.up, kept_.normed_hidden);
    emit(sink, LinearLayer::gate_proj, kept_.gate, kept_.normed_hidden);

    // dy becomes the gradient of the hidden states between the two halves: residual path plus MLP path.
    device_.rms_norm_backward(kept_.hidden, weights.vector(BlockVector::post_attention_norm), kept_.inverse_rms_hidden,
                              gradients_.normed, true, dy);
    device_.linear_input_gradient(dy, weight(LinearLayer::o_proj), false, gradients_.attention_out);
    emit(sink, LinearLayer::o_proj, dy, kept_.attention_out);
    device_.attention_backward(kept_.q, kept_.k, kept_.v, kept_.attention_out, kept_.log_sum_exp,
                               gradients_.attention_out, shape_, gradients_.q, gradients_.k, gradients_.v);
    device_.apply_rope(gradients_.q, shape_.head_size, cosine_, sine_, true);
    device_.apply_rope(gradients_.k, shape_.head_size, cosine_, sine_, true);
    if (query_key_norm_) {
        const auto through_norm = [&](BlockVector norm, TensorView projected, TensorView inverse_rms,
                                      TensorView gradient) {
            const std::size_t rows = projected.size() / shape_.head_size;
            const TensorView heads = gradient.reshaped(rows, shape_.head_size);
            device_.rms_norm_backward(projected.reshaped(rows, shape_.head_size), weights.vector(norm), inverse_rms,
                                      heads, false, heads);
        };
        through_norm(BlockVector::query_norm, kept_.q_projected, kept_.inverse_rms_q, gradients_.q);
        through_norm(BlockVector::key_norm, kept_.k_projected, kept_.inverse_rms_k, gradients_.k);
    }
    emit(sink, LinearLayer::v_proj, gradients_.v, kept_.normed);
    emit(sink, LinearLayer::k_proj, gradients_.k, kept_.normed);
    emit(sink, LinearLayer::q_proj, gradients_.q, kept_.normed);
}

}  // namespace espalier
