#include "src/model/decoder_block.h"

#include "src/model/rope_table.h"

#include <vector>

namespace espalier {

DecoderBlock::DecoderBlock(Device& device, const ModelConfig& config, std::size_t tokens, Passes passes,
                           DType widest_weights, std::size_t samples)
    : device_(device),
      shape_{config.query_heads, config.key_value_heads, config.head_size},
      tokens_(tokens),
      samples_(samples),
      epsilon_(config.rms_norm_epsilon),
      query_key_norm_(config.query_key_norm),
      keeps_activations_(passes == Passes::forward_and_backward) {
    const std::size_t hidden = config.hidden_size, inter = config.intermediate_size;
    const std::size_t query = config.query_width(), key_value = config.key_value_width();
    const auto make = [&](std::size_t rows, std::size_t columns) {
        return device.make_tensor(DType::f32, rows, columns);
    };
    const auto make_factor = [&](std::size_t rows, std::size_t columns) {
        return device.make_tensor(widest_weights, rows, columns);
    };
    const RopeTable table = make_rope_table(config.rope, config.head_size, tokens);
    cosine_ = make(tokens, config.head_size / 2);
    sine_ = make(tokens, config.head_size / 2);
    device.copy_from_host(table.cosine.data(), cosine_);
    device.copy_from_host(table.sine.data(), sine_);

    require(samples == 1 || passes == Passes::forward_only, "one sample in passes with gradients");
    const std::size_t rows = samples * tokens;
    kept_.normed = make_factor(rows, hidden);
    kept_.q = make_factor(rows, query);
    kept_.k = make_factor(rows, key_value);
    kept_.v = make_factor(rows, key_value);
    kept_.attention_out = make_factor(rows, query);
    kept_.log_sum_exp = make(samples * config.query_heads, tokens);
    kept_.hidden = make(rows, hidden);
    kept_.normed_hidden = make_factor(rows, hidden);
    kept_.gate = make_factor(rows, inter);
    kept_.up = make_factor(rows, inter);
    kept_.activation = make_factor(rows, inter);
    kept_.inverse_rms = make(1, rows);
    kept_.inverse_rms_hidden = make(1, rows);
    if (query_key_norm_) {
        kept_.q_projected = make_factor(rows, query);
        kept_.k_projected = make_factor(rows, key_value);
        kept_.inverse_rms_q = make(1, rows * config.query_heads);
        kept_.inverse_rms_k = make(1, rows * config.key_value_heads);
    }
    if (!keeps_activations_) return;
    if (device.compute_dtype(DType::bf16) != DType::f32)
        gradients_.residual = device.make_tensor(DType::bf16, tokens, hidden);
    gradients_.normed = make(tokens, hidden);
    gradients_.activation = make_factor(tokens, inter);
    gradients_.attention_out = make_factor(tokens, query);
    gradients_.q = make_factor(tokens, query);
    gradients_.k = make_factor(tokens, key_value);
    gradients_.v = make_factor(tokens, key_value);
}

TensorView DecoderBlock::as_factor(TensorView gradient) {
    if (dtype_ == DType::f32) return gradient;
    const TensorView rounded = now(gradients_.residual);
    device_.convert(gradient, rounded);
    return rounded;
}

void DecoderBlock::project(const BlockWeights& weights, LinearLayer layer, BlockVector bias, TensorView x,
                           TensorView y) {
    device_.linear(x, weights.matrices.matrix(layer), {}, y);
    if (!weights.vector(bias).empty()) device_.add_bias(weights.vector(bias), y);
}

void DecoderBlock::normalise_heads(const BlockWeights& weights, BlockVector norm, TensorView projected,
                                   TensorView inverse_rms, TensorView heads) {
    const std::size_t rows = projected.size() / shape_.head_size;
    device_.rms_norm(projected.reshaped(rows, shape_.head_size), weights.vector(norm), epsilon_,
                     heads.reshaped(rows, shape_.head_size), inverse_rms);
}

void DecoderBlock::normalise_heads_backward(const BlockWeights& weights, BlockVector norm, TensorView projected,
                                            TensorView inverse_rms, TensorView gradient) {
    const std::size_t rows = projected.size() / shape_.head_size;
    const TensorView heads = gradient.reshaped(rows, shape_.head_size);
    device_.rms_norm_backward(projected.reshaped(rows, shape_.head_size), weights.vector(norm), inverse_rms, heads,
                              false, heads);
}

void DecoderBlock::attend(const BlockWeights& weights) {
    const TensorView q = now(query_key_norm_ ? kept_.q_projected : kept_.q);
    const TensorView k = now(query_key_norm_ ? kept_.k_projected : kept_.k);
    const TensorView v = now(kept_.v), normed = now(kept_.normed);
    project(weights, LinearLayer::q_proj, BlockVector::q_bias, normed, q);
    project(weights, LinearLayer::k_proj, BlockVector::k_bias, normed, k);
    project(weights, LinearLayer::v_proj, BlockVector::v_bias, normed, v);
    if (query_key_norm_) {
        normalise_heads(weights, BlockVector::query_norm, q, kept_.inverse_rms_q, now(kept_.q));
        normalise_heads(weights, BlockVector::key_norm, k, kept_.inverse_rms_k, now(kept_.k));
    }
    for (std::size_t sample = 0; sample < samples_; ++sample) {
        const auto rows_of = [&](TensorView all) { return all.row_range(sample * tokens_, (sample + 1) * tokens_); };
        const TensorView q_of_sample = rows_of(now(kept_.q)), k_of_sample = rows_of(now(kept_.k));
        device_.apply_rope(q_of_sample, shape_.head_size, cosine_, sine_, false);
        device_.apply_rope(k_of_sample, shape_.head_size, cosine_, sine_, false);
        device_.attention(
            q_of_sample, k_of_sample, rows_of(v), shape_, rows_of(now(kept_.attention_out)),
            kept_.log_sum_exp.view().row_range(sample * shape_.query_heads, (sample + 1) * shape_.query_heads));
    }
}

void DecoderBlock::attend_backward(const BlockWeights& weights) {
    const TensorView dq = now(gradients_.q), dk = now(gradients_.k);
    device_.attention_backward(now(kept_.q), now(kept_.k), now(kept_.v), now(kept_.attention_out), kept_.log_sum_exp,
                               now(gradients_.attention_out), shape_, dq, dk, now(gradients_.v));
    device_.apply_rope(dq, shape_.head_size, cosine_, sine_, true);
    device_.apply_rope(dk, shape_.head_size, cosine_, sine_, true);
    if (!query_key_norm_) return;
    normalise_heads_backward(weights, BlockVector::query_norm, now(kept_.q_projected), kept_.inverse_rms_q, dq);
    normalise_heads_backward(weights, BlockVector::key_norm, now(kept_.k_projected), kept_.inverse_rms_k, dk);
}

void DecoderBlock::add_projection(const BlockWeights& weights, LinearLayer layer, BlockVector bias, TensorView x,
                                  TensorView residual, TensorView y) {
    device_.linear(x, weights.matrices.matrix(layer), residual, y);
    if (!weights.vector(bias).empty()) device_.add_bias(weights.vector(bias), y);
}

void DecoderBlock::compute_inputs(const BlockWeights& weights, TensorView x, LinearInput last,
                                  LinearInputObserver* observer) {
    const auto is_last = [&](LinearInput input, TensorView value) {
        if (observer != nullptr) observer->observe(input, value);
        return input == last;
    };
    dtype_ = weights.dtype();
    const TensorView normed = now(kept_.normed), attention_out = now(kept_.attention_out);
    const TensorView normed_hidden = now(kept_.normed_hidden), activation = now(kept_.activation);
    const TensorView gate = now(kept_.gate), up = now(kept_.up);
    device_.rms_norm(x, weights.vector(BlockVector::input_norm), epsilon_, normed, kept_.inverse_rms);
    if (is_last(LinearInput::attention, normed)) return;
    attend(weights);
    if (is_last(LinearInput::attention_output, attention_out)) return;
    add_projection(weights, LinearLayer::o_proj, BlockVector::o_bias, attention_out, x, kept_.hidden);
    device_.rms_norm(kept_.hidden, weights.vector(BlockVector::post_attention_norm), epsilon_, normed_hidden,
                     kept_.inverse_rms_hidden);
    if (is_last(LinearInput::mlp, normed_hidden)) return;
    project(weights, LinearLayer::gate_proj, BlockVector::gate_bias, normed_hidden, gate);
    project(weights, LinearLayer::up_proj, BlockVector::up_bias, normed_hidden, up);
    device_.silu_multiply(gate, up, activation);
    if (observer != nullptr) observer->observe(LinearInput::mlp_activation, activation);
}

void DecoderBlock::observe_inputs(const BlockWeights& weights, TensorView x, LinearInput last,
                                  LinearInputObserver& observer) {
    compute_inputs(weights, x, last, &observer);
}

void DecoderBlock::forward(const BlockWeights& weights, TensorView x, TensorView y, LinearInputObserver* observer) {
    compute_inputs(weights, x, LinearInput::mlp_activation, observer);
    add_projection(weights, LinearLayer::down_proj, BlockVector::down_bias, now(kept_.activation), kept_.hidden, y);
}

void DecoderBlock::emit(WeightGradientSink& sink, TensorView x, std::initializer_list<LayerGradient> gradients) {
    std::vector<WeightGradient> requests;
    for (const auto& [layer, dy] : gradients) {
        requests.push_back(
            {dy,
             [&sink, layer = layer](std::size_t row_begin, TensorView panel) { sink.consume(layer, row_begin, panel); },
             [&sink, layer = layer] { sink.finished(layer); }});
    }
    device_.linear_weight_gradients(x, requests);
}

void DecoderBlock::backward(const BlockWeights& weights, TensorView dy, WeightGradientSink& sink) {
    require(keeps_activations_, "a decoder block made for backward passes");
    const auto weight = [&](LinearLayer layer) { return weights.matrices.matrix(layer); };
    require(weights.dtype() == dtype_, "the weights of the forward pass");
    const TensorView gate = now(kept_.gate), up = now(kept_.up), normed_hidden = now(kept_.normed_hidden);
    const TensorView dactivation = now(gradients_.activation), dattention = now(gradients_.attention_out);
    // A layer's input gradient is taken before its weight gradient is handed out: the sink may change the weight at
    // once.
    TensorView factor = as_factor(dy);
    device_.linear_input_gradient(factor, weight(LinearLayer::down_proj), false, dactivation);
    emit(sink, now(kept_.activation), {{LinearLayer::down_proj, factor}});
    device_.silu_multiply_backward(dactivation, gate, up);
    device_.linear_input_gradient(up, weight(LinearLayer::up_proj), false, gradients_.normed);
    device_.linear_input_gradient(gate, weight(LinearLayer::gate_proj), true, gradients_.normed);
    emit(sink, normed_hidden, {{LinearLayer::up_proj, up}, {LinearLayer::gate_proj, gate}});

    // dy becomes the gradient of the hidden states between the two halves: residual path plus MLP path.
    device_.rms_norm_backward(kept_.hidden, weights.vector(BlockVector::post_attention_norm), kept_.inverse_rms_hidden,
                              gradients_.normed, true, dy);
    factor = as_factor(dy);
    device_.linear_input_gradient(factor, weight(LinearLayer::o_proj), false, dattention);
    emit(sink, now(kept_.attention_out), {{LinearLayer::o_proj, factor}});
    attend_backward(weights);
    emit(sink, now(kept_.normed),
         {{LinearLayer::v_proj, now(gradients_.v)},
          {LinearLayer::k_proj, now(gradients_.k)},
          {LinearLayer::q_proj, now(gradients_.q)}});
}

}  // namespace espalier
