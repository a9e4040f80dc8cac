#include "src/model/attention_half.h"

#include "src/model/rope_table.h"

#include <algorithm>

namespace espalier {

AttentionHalf::AttentionHalf(Device& device, const ModelConfig& config, const AttentionTensors& tensors,
                             const PassShape& shape, const SharedGradients& shared)
    : BlockHalf(device, config, shape, shared),
      config_(config),
      tensors_(tensors),
      heads_{config.query_heads, config.key_value_heads, config.head_size},
      head_norm_(config.blocks.front().head_norm) {
    const std::size_t query = config.query_width(), key_value = config.key_value_width(), rows = shape.rows;
    for (const BlockSpecification& block : config.blocks) {
        const auto known = [&](const RotaryTable& table) { return table.rope == block.rope; };
        if (!block.rope || std::any_of(tables_.begin(), tables_.end(), known)) continue;
        const RopeTable values = make_rope_table(*block.rope, shape.tokens);
        tables_.push_back(
            {block.rope, make(shape.tokens, block.rope->width / 2), make(shape.tokens, block.rope->width / 2)});
        device.copy_from_host(values.cosine.data(), tables_.back().cosine);
        device.copy_from_host(values.sine.data(), tables_.back().sine);
    }
    normed_ = make_factor(rows, config.hidden_size);
    q_ = make_factor(rows, query);
    k_ = make_factor(rows, key_value);
    v_ = make_factor(rows, key_value);
    heads_output_ = make_factor(rows, query);
    log_sum_exp_ = make(config.query_heads, rows);
    if (tensors.input_norm) inverse_rms_ = make(1, rows);
    if (head_norm_ != HeadNorm::none) {
        const bool each = head_norm_ == HeadNorm::each_head;
        q_projected_ = make_factor(rows, query);
        k_projected_ = make_factor(rows, key_value);
        inverse_rms_q_ = make(1, rows * (each ? config.query_heads : 1));
        inverse_rms_k_ = make(1, rows * (each ? config.key_value_heads : 1));
    }
    if (tensors.output_norm) {
        output_ = make(rows, config.hidden_size);
        inverse_rms_output_ = make(1, rows);
    }
    if (shape.with_prefixes) {
        joined_q_ = make_factor(shape.tokens, query);
        joined_k_ = make_factor(shape.tokens, key_value);
        joined_v_ = make_factor(shape.tokens, key_value);
        joined_output_ = make_factor(shape.tokens, query);
    }
    if (!shape.keeps_activations()) return;
    dheads_output_ = make_factor(rows, query);
    dq_ = make_factor(rows, query);
    dk_ = make_factor(rows, key_value);
    dv_ = make_factor(rows, key_value);
}

const AttentionHalf::RotaryTable* AttentionHalf::table_of(const BlockWeights& weights) const {
    const std::shared_ptr<const RopeConfig>& rope = config_.blocks[weights.block].rope;
    if (!rope) return nullptr;
    const auto found =
        std::find_if(tables_.begin(), tables_.end(), [&](const RotaryTable& table) { return table.rope == rope; });
    return &*found;
}

void AttentionHalf::refuse_other_side_of_longrope(const RopeConfig& rope, std::size_t tokens) const {
    const auto is_long = [&](std::size_t count) { return static_cast<double>(count) > rope.original_max_positions; };
    require(rope.scaling != RopeScaling::longrope || is_long(tokens) == is_long(shape_.tokens),
            "samples on the side of longrope's original length for which the block was made");
}

TensorView AttentionHalf::by_norm(TensorView projected) const {
    if (head_norm_ == HeadNorm::all_heads) return projected;
    return projected.reshaped(projected.size() / heads_.head_size, heads_.head_size);
}

void AttentionHalf::norm_input(const BlockWeights& weights, TensorView x) {
    if (tensors_.input_norm)
        device_.rms_norm(x, weights.vector(*tensors_.input_norm), epsilon_, now(normed_), inverse_rms_);
    else
        device_.convert(x, now(normed_));
}

void AttentionHalf::project_heads(const BlockWeights& weights) {
    const bool norms = head_norm_ != HeadNorm::none;
    const TensorView q = now(q_), k = now(k_), v = now(v_), normed = now(normed_);
    const TensorView q_projected = norms ? now(q_projected_) : q, k_projected = norms ? now(k_projected_) : k;
    project(weights, tensors_.q, normed, {}, q_projected);
    project(weights, tensors_.k, normed, {}, k_projected);
    project(weights, tensors_.v, normed, {}, v);
    if (norms) {
        device_.rms_norm(by_norm(q_projected), weights.vector(*tensors_.query_norm), epsilon_, by_norm(q),
                         inverse_rms_q_);
        device_.rms_norm(by_norm(k_projected), weights.vector(*tensors_.key_norm), epsilon_, by_norm(k),
                         inverse_rms_k_);
    }
}

void AttentionHalf::attend(const BlockWeights& weights, std::span<const RowSegment> segments) {
    const TensorView q = now(q_), k = now(k_), v = now(v_);
    const RotaryTable* const table = table_of(weights);
    std::size_t begin = 0;
    for (const RowSegment& segment : segments) {
        const std::size_t end = begin + segment.rows, tokens = segment.prefix_rows + segment.rows;
        const TensorView q_of_segment = q.row_range(begin, end), k_of_segment = k.row_range(begin, end);
        require(tokens <= shape_.tokens, "samples of at most the length that was said");
        if (table != nullptr) {
            refuse_other_side_of_longrope(*table->rope, tokens);
            const TensorView cosine = table->cosine.view().row_range(segment.prefix_rows, tokens),
                             sine = table->sine.view().row_range(segment.prefix_rows, tokens);
            device_.apply_rope(q_of_segment, heads_.head_size, cosine, sine, false);
            device_.apply_rope(k_of_segment, heads_.head_size, cosine, sine, false);
        }
        if (segment.prefix_rows > 0) {
            attend_behind_prefix(begin, segment);
        } else {
            device_.attention(q_of_segment, k_of_segment, v.row_range(begin, end), heads_,
                              now(heads_output_).row_range(begin, end), log_sum_exp_of(begin, tokens));
        }
        begin = end;
    }
    require(begin == rows_, "segments of all rows");
}

TensorView AttentionHalf::log_sum_exp_of(std::size_t begin, std::size_t tokens) const {
    std::byte* const sums = log_sum_exp_.view().data + heads_.query_heads * begin * sizeof(float);
    return {sums, DType::f32, heads_.query_heads, tokens};
}

// Attention of the whole sample, of which the outputs of the beginning are known already. That is more attention, but
// products, which are nearly all of a block, are computed once for all that follow on one beginning.
void AttentionHalf::attend_behind_prefix(std::size_t begin, const RowSegment& segment) {
    const std::size_t tokens = segment.prefix_rows + segment.rows;
    require(shape_.with_prefixes && segment.prefix_begin + segment.prefix_rows <= begin, "a beginning in earlier rows");
    const auto joined = [&](const Tensor& all, const Tensor& together) {
        const TensorView rows = now(all), sample = together.view().as(dtype_).row_range(0, tokens);
        device_.copy(rows.row_range(segment.prefix_begin, segment.prefix_begin + segment.prefix_rows),
                     sample.row_range(0, segment.prefix_rows));
        device_.copy(rows.row_range(begin, begin + segment.rows), sample.row_range(segment.prefix_rows, tokens));
        return sample;
    };
    const TensorView output = joined_output_.view().as(dtype_).row_range(0, tokens);
    device_.attention(joined(q_, joined_q_), joined(k_, joined_k_), joined(v_, joined_v_), heads_, output,
                      {log_sum_exp_.view().data, DType::f32, heads_.query_heads, tokens});
    device_.copy(output.row_range(segment.prefix_rows, tokens),
                 now(heads_output_).row_range(begin, begin + segment.rows));
}

void AttentionHalf::attend_to_cache(const BlockWeights& weights, const KeyValueCache& cache, std::size_t position) {
    require(cache.tokens() <= shape_.tokens && position < cache.tokens(),
            "a cache of at most the length that was said");
    if (const RotaryTable* const table = table_of(weights)) {
        const TensorView cosine = table->cosine.view().row_range(position, position + 1),
                         sine = table->sine.view().row_range(position, position + 1);
        // All sequences are at one position: their heads are those of one row.
        for (const TensorView& heads : {now(q_), now(k_)})
            device_.apply_rope(heads.reshaped(1, heads.size()), heads_.head_size, cosine, sine, false);
    }
    device_.attention_step(now(q_), now(k_), now(v_), heads_, position, cache.keys(weights.block, rows_),
                           cache.values(weights.block, rows_), now(heads_output_));
}

void AttentionHalf::add_output(const BlockWeights& weights, TensorView x, TensorView h) {
    const TensorView heads_output = now(heads_output_);
    if (!tensors_.output_norm) return project(weights, tensors_.o, heads_output, x, h);
    project(weights, tensors_.o, heads_output, {}, floats(output_));
    device_.rms_norm(floats(output_), weights.vector(*tensors_.output_norm), epsilon_, h, inverse_rms_output_);
    device_.add(x, h);
}

bool AttentionHalf::forward(const BlockWeights& weights, TensorView x, TensorView h,
                            std::span<const RowSegment> segments, LinearInput last, LinearInputObserver* observer) {
    begin_pass(weights, x.rows);
    if (shape_.keeps_activations()) segments_.assign(segments.begin(), segments.end());
    norm_input(weights, x);
    if (observer != nullptr) observer->observe(tensors_.input, now(normed_));
    if (last == tensors_.input) return false;
    project_heads(weights);
    attend(weights, segments);
    if (observer != nullptr) observer->observe(tensors_.heads_output, now(heads_output_));
    if (last == tensors_.heads_output) return false;
    add_output(weights, x, h);
    return true;
}

void AttentionHalf::decode(const BlockWeights& weights, TensorView x, TensorView h, const KeyValueCache& cache,
                           std::size_t position) {
    begin_pass(weights, x.rows);
    norm_input(weights, x);
    project_heads(weights);
    attend_to_cache(weights, cache, position);
    add_output(weights, x, h);
}

void AttentionHalf::attend_backward(const BlockWeights& weights, WeightGradientSink& sink) {
    const TensorView dq = now(dq_), dk = now(dk_);
    const RotaryTable* const table = table_of(weights);
    std::size_t begin = 0;
    for (const RowSegment& segment : segments_) {
        require(segment.prefix_rows == 0, "backward passes of whole samples");
        const std::size_t end = begin + segment.rows;
        const auto rows = [&](const Tensor& tensor) { return now(tensor).row_range(begin, end); };
        const TensorView dq_of_segment = rows(dq_), dk_of_segment = rows(dk_);
        device_.attention_backward(rows(q_), rows(k_), rows(v_), rows(heads_output_),
                                   log_sum_exp_of(begin, segment.rows), rows(dheads_output_), heads_, dq_of_segment,
                                   dk_of_segment, rows(dv_));
        if (table != nullptr) {
            device_.apply_rope(dq_of_segment, heads_.head_size, table->cosine, table->sine, true);
            device_.apply_rope(dk_of_segment, heads_.head_size, table->cosine, table->sine, true);
        }
        begin = end;
    }
    if (head_norm_ == HeadNorm::none) return;
    emit_gain(sink, *tensors_.query_norm, by_norm(now(q_projected_)), inverse_rms_q_, by_norm(dq));
    device_.rms_norm_backward(by_norm(now(q_projected_)), weights.vector(*tensors_.query_norm), inverse_rms_q_,
                              by_norm(dq), false, by_norm(dq));
    emit_gain(sink, *tensors_.key_norm, by_norm(now(k_projected_)), inverse_rms_k_, by_norm(dk));
    device_.rms_norm_backward(by_norm(now(k_projected_)), weights.vector(*tensors_.key_norm), inverse_rms_k_,
                              by_norm(dk), false, by_norm(dk));
}

void AttentionHalf::backward(const BlockWeights& weights, TensorView dh, TensorView x, WeightGradientSink& sink) {
    TensorView doutput = dh;
    if (tensors_.output_norm) {
        doutput = floats(shared_.input);
        emit_gain(sink, *tensors_.output_norm, floats(output_), inverse_rms_output_, dh);
        device_.rms_norm_backward(floats(output_), weights.vector(*tensors_.output_norm), inverse_rms_output_, dh,
                                  false, doutput);
    }
    // A layer's input gradient is taken before its weight gradient is handed out: the sink may change the weight at
    // once.
    const TensorView factor = as_factor(doutput);
    project_gradient(weights, tensors_.o, factor, false, now(dheads_output_));
    emit(sink, now(heads_output_), {{tensors_.o, factor}});
    attend_backward(weights, sink);
    if (!x.empty()) input_gradient(weights, dh, x, sink);
    emit(sink, now(normed_), {{tensors_.v, now(dv_)}, {tensors_.k, now(dk_)}, {tensors_.q, now(dq_)}});
}

void AttentionHalf::input_gradient(const BlockWeights& weights, TensorView dh, TensorView x, WeightGradientSink& sink) {
    const TensorView dinput = floats(shared_.input);
    project_gradient(weights, tensors_.v, now(dv_), false, dinput);
    project_gradient(weights, tensors_.k, now(dk_), true, dinput);
    project_gradient(weights, tensors_.q, now(dq_), true, dinput);
    if (tensors_.input_norm) {
        emit_gain(sink, *tensors_.input_norm, x, inverse_rms_, dinput);
        device_.rms_norm_backward(x, weights.vector(*tensors_.input_norm), inverse_rms_, dinput, true, dh);
    } else {
        device_.add(dinput, dh);
    }
}

}  // namespace espalier
