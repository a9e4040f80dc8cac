#include "src/finetune/trained_values.h"

#include "mpi/tensor_collectives.h"
#include "src/base/philox.h"
#include "src/model/block_half.h"
#include "src/model/weight_sizes.h"

#include <algorithm>
#include <cmath>

namespace espalier {

namespace {

constexpr const char* trained = "trained values";

/// A range of a vector's elements, as one row.
TensorView elements(TensorView vector, std::size_t begin, std::size_t end) {
    require(begin <= end && end <= vector.size(), "elements of the vector");
    return {vector.data + begin * bytes_of(vector.dtype), vector.dtype, 1, end - begin};
}

/// Uniform in +-1/sqrt(columns), as peft begins: a pure function of seed, block, tensor and element.
std::vector<float> first_a(const TrainedTensor& tensor, std::uint64_t seed, std::size_t block) {
    constexpr std::uint32_t draws_of_a = 0x10AA;
    const double bound = 1 / std::sqrt(static_cast<double>(tensor.columns));
    const std::array<std::uint32_t, 2> key = {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)};
    std::vector<float> values(tensor.size());
    for (std::size_t i = 0; i < values.size(); i += 4) {
        const auto words = philox4x32({static_cast<std::uint32_t>(i / 4), static_cast<std::uint32_t>(tensor.offset),
                                       static_cast<std::uint32_t>(block), draws_of_a},
                                      key);
        for (std::size_t j = 0; j < 4 && i + j < values.size(); ++j) {
            values[i + j] = static_cast<float>(bound * (2 * (static_cast<double>(words[j]) + 0.5) / 4294967296.0 - 1));
        }
    }
    return values;
}

}  // namespace

std::vector<TrainedState> kept_states(const FinetuneOptions& options) {
    std::vector<TrainedState> kept = {TrainedState::first_moment, TrainedState::second_moment};
    if (!options.low_rank()) kept.push_back(TrainedState::values);
    if (options.bounds_gradients()) kept.push_back(TrainedState::gradient);
    if (options.held_out > 0) kept.push_back(TrainedState::best_values);
    return kept;
}

TrainedValues::TrainedValues(const TrainingContext& context)
    : context_(context),
      ranks_(context.ranks()),
      block_(TrainedLayout::of_block(context.student.layout(), context.options)),
      end_(TrainedLayout::of_end(context.student.layout(), context.options, context.hidden_size())),
      units_(context.blocks() + 1),
      store_(context, sizes_of_parts(), kept_states(context.options)),
      square_sums_(context.device, std::max<std::size_t>(1, chunks_before(units_.size()))) {
    for (std::size_t u = 0; u < units_.size(); ++u) {
        if (is_whole()) units_[u].whole = context.device.make_tensor(DType::f32, 1, layout(u).size(), trained);
        units_[u].rates.assign(layout(u).tensors().size(), 1.0);
    }
}

std::vector<std::size_t> TrainedValues::sizes_of_parts() const {
    std::vector<std::size_t> sizes;
    for (std::size_t u = 0; u < units_.size(); ++u) {
        const PartOffsets offsets = parts(u);
        sizes.push_back(offsets[context_.me() + 1] - offsets[context_.me()]);
    }
    return sizes;
}

std::vector<TrainedState> TrainedValues::checkpoint_states() const {
    std::vector<TrainedState> states = {TrainedState::values, TrainedState::first_moment, TrainedState::second_moment};
    if (context_.options.held_out > 0) states.push_back(TrainedState::best_values);
    return states;
}

TensorView TrainedValues::part_of(std::size_t unit) const {
    if (!is_whole()) return store_.take(unit, TrainedState::values);
    const PartOffsets offsets = parts(unit);
    return elements(units_[unit].whole, offsets[context_.me()], offsets[context_.me() + 1]);
}

void TrainedValues::start(std::size_t block, const BlockWeights& weights, TensorView scratch) {
    Device& device = context_.device;
    Unit& unit = units_[block];
    const PartOffsets offsets = parts(block);
    const TensorView own = is_whole() ? TensorView{} : store_.place(block, TrainedState::values);
    const auto take = [&](std::size_t t, TensorView from) {
        const TrainedTensor& tensor = block_.tensors()[t];
        if (is_whole()) return device.convert(from, values_of(tensor, unit.whole));
        unit.rates[t] = sizes_of_nonzero(device, {&from, 1}, scratch).front();
        const PartOffsets in_tensor = TrainedLayout::parts_in(tensor, offsets);
        const std::size_t begin = in_tensor[context_.me()], end = in_tensor[context_.me() + 1];
        if (begin == end) return;
        const std::size_t place = tensor.offset + begin - offsets[context_.me()];
        device.convert(elements(from, begin, end), elements(own, place, place + end - begin));
    };
    for (std::size_t t = 0; t < block_.tensors().size(); ++t) {
        const TrainedTensor& tensor = block_.tensors()[t];
        switch (tensor.kind) {
            case TrainedKind::weight:
                take(t, weights.matrices.matrix(tensor.layer));
                break;
            case TrainedKind::gain:
                take(t, weights.vector(*tensor.vector));
                break;
            case TrainedKind::lora_a:
                device.copy_from_host(first_a(tensor, context_.options.seed, block).data(),
                                      values_of(tensor, unit.whole));
                break;
            case TrainedKind::lora_b:
                device.fill_zero(values_of(tensor, unit.whole));
                break;
        }
    }
    if (!is_whole()) store_.put_back(block, TrainedState::values);
}

void TrainedValues::start_end(TensorView final_norm) {
    if (end_.size() == 0) return;
    Unit& unit = units_.back();
    if (is_whole()) return context_.device.copy(final_norm, unit.whole);
    unit.rates[0] = sizes_of_nonzero(context_.device, {&final_norm, 1}, {}).front();
    const std::size_t end = units_.size() - 1;
    const PartOffsets offsets = parts(end);
    const TensorView mine = elements(final_norm, offsets[context_.me()], offsets[context_.me() + 1]);
    if (mine.size() > 0) context_.device.copy(mine, store_.place(end, TrainedState::values));
    store_.put_back(end, TrainedState::values);
}

void TrainedValues::apply(std::size_t block, const BlockWeights& base, BlockWeights& weights) const {
    if (!is_whole()) return;
    Device& device = context_.device;
    const TensorView values = units_[block].whole;
    const auto scale = static_cast<float>(context_.options.scale());
    const ZeroWeights zeros = context_.options.keeps_zeros() ? ZeroWeights::kept : ZeroWeights::updated;
    for (const TrainedTensor& tensor : block_.tensors()) {
        if (tensor.kind == TrainedKind::gain) device.copy(values_of(tensor, values), weights.vector(*tensor.vector));
        if (tensor.kind != TrainedKind::lora_b) continue;
        const TensorView a = low_rank(block, *block_.find(TrainedKind::lora_a, tensor.layer));
        device.add_low_rank_update(base.matrices.matrix(tensor.layer), a, values_of(tensor, values), scale, zeros,
                                   weights.matrices.matrix(tensor.layer));
    }
}

void TrainedValues::masked_update(std::size_t block, LinearLayer layer, TensorView weight, TensorView update) const {
    context_.device.linear_input_gradient(low_rank(block, *block_.find(TrainedKind::lora_b, layer)),
                                          low_rank(block, *block_.find(TrainedKind::lora_a, layer)), false, update);
    context_.device.scale_where_nonzero(weight, static_cast<float>(context_.options.scale()), update);
}

LowRankFactors TrainedValues::factors(std::size_t block, LinearLayer layer, DType dtype) const {
    const auto factor = [&](TrainedKind kind) {
        const TensorView value = low_rank(block, *block_.find(kind, layer));
        Tensor converted = context_.device.make_tensor(dtype, value.rows, value.columns, activations);
        context_.device.convert(value, converted);
        return converted;
    };
    return {factor(TrainedKind::lora_a), factor(TrainedKind::lora_b)};
}

std::vector<std::unique_ptr<Exchange>> TrainedValues::start_gathering_parts_of(
    std::size_t unit, const std::function<TensorView(const TrainedTensor&)>& place) const {
    const PartOffsets offsets = parts(unit);
    TensorView own;  // all of this rank's part, where it is rounded on its way
    std::vector<std::unique_ptr<Exchange>> exchanges;
    for (const TrainedTensor& tensor : layout(unit).tensors()) {
        const TensorView to = place(tensor).reshaped(1, tensor.size());
        const PartOffsets in_tensor = TrainedLayout::parts_in(tensor, offsets);
        const std::size_t begin = in_tensor[context_.me()], end = in_tensor[context_.me() + 1];
        if (begin < end) {
            const std::size_t first = tensor.offset + begin - offsets[context_.me()];
            if (to.dtype == DType::f32) {
                store_.read(unit, TrainedState::values, first, elements(to, begin, end));
            } else {
                if (own.empty()) own = store_.take(unit, TrainedState::values);
                context_.device.convert(elements(own, first, first + end - begin), elements(to, begin, end));
            }
        }
        exchanges.push_back(start_all_gather(context_.group, to, in_tensor));
    }
    return exchanges;
}

std::vector<std::unique_ptr<Exchange>> TrainedValues::start_gathering(std::size_t block, BlockWeights& weights) const {
    if (is_whole()) return {};
    return start_gathering_parts_of(block, [&](const TrainedTensor& tensor) {
        return tensor.kind == TrainedKind::gain ? weights.vector(*tensor.vector)
                                                : weights.matrices.matrix(tensor.layer);
    });
}

void TrainedValues::gather_end(TensorView final_norm) const {
    if (end_.size() == 0) return;
    if (is_whole()) return context_.device.copy(units_.back().whole, final_norm);
    const auto exchanges =
        start_gathering_parts_of(units_.size() - 1, [&](const TrainedTensor& /*tensor*/) { return final_norm; });
    for (const std::unique_ptr<Exchange>& exchange : exchanges) exchange->finish();
}

TensorView TrainedValues::low_rank(std::size_t block, const TrainedTensor& tensor) const {
    return values_of(tensor, units_[block].whole);
}

std::size_t TrainedValues::chunks_of(std::size_t unit, std::size_t rank) const {
    const PartOffsets in_unit = parts(unit);
    const std::size_t chunk = layout(unit).chunk();
    return (in_unit[rank + 1] - in_unit[rank] + chunk - 1) / chunk;
}

std::size_t TrainedValues::chunks_before(std::size_t unit) const {
    std::size_t chunks = 0;
    for (std::size_t u = 0; u < unit; ++u) chunks += chunks_of(u, context_.me());
    return chunks;
}

void TrainedValues::take_gradient(std::size_t unit) {
    const TensorView gradient = gradient_part(unit);
    const std::size_t chunk = layout(unit).chunk();
    std::size_t next = chunks_before(unit);
    for (std::size_t begin = 0; begin < gradient.size(); begin += chunk) {
        context_.device.square_sum(elements(gradient, begin, std::min(gradient.size(), begin + chunk)),
                                   square_sums_.at(next++));
    }
    store_.put_back(unit, TrainedState::gradient);
}

double TrainedValues::gradient_square_sum() {
    std::vector<std::size_t> offsets = {0};
    for (std::size_t rank = 0; rank < ranks_; ++rank) {
        std::size_t count = 0;
        for (std::size_t u = 0; u < units_.size(); ++u) count += chunks_of(u, rank);
        offsets.push_back(offsets.back() + count);
    }
    const std::size_t first = offsets[context_.me()];
    const std::vector<double> mine = square_sums_.read();
    context_.device.fill_zero(square_sums_.all());
    std::vector<double> all(offsets.back());
    std::copy_n(mine.begin(), offsets[context_.me() + 1] - first, all.begin() + static_cast<std::ptrdiff_t>(first));
    context_.control.all_gather(std::span(all), offsets);
    // Unit after unit, and in each chunk after chunk: the ranks' parts follow each other.
    std::vector<std::size_t> places(offsets.begin(), offsets.end() - 1);
    double total = 0;
    for (std::size_t u = 0; u < units_.size(); ++u) {
        for (std::size_t rank = 0; rank < ranks_; ++rank) {
            for (std::size_t left = chunks_of(u, rank); left > 0; --left) total += all[places[rank]++];
        }
    }
    return total;
}

void TrainedValues::step(std::size_t unit, const TrainedUpdate& update) {
    const PartOffsets offsets = parts(unit);
    const TensorView values = part_of(unit), gradient = store_.take(unit, TrainedState::gradient),
                     first_moment = store_.take(unit, TrainedState::first_moment),
                     second_moment = store_.take(unit, TrainedState::second_moment);
    for (std::size_t t = 0; t < layout(unit).tensors().size(); ++t) {
        const TrainedTensor& tensor = layout(unit).tensors()[t];
        const PartOffsets in_tensor = TrainedLayout::parts_in(tensor, offsets);
        const std::size_t begin = in_tensor[context_.me()], end = in_tensor[context_.me() + 1];
        if (begin == end) continue;
        const std::size_t first = tensor.offset + begin - offsets[context_.me()], last = first + end - begin;
        OptimizedRows rows;
        rows.gradient = elements(gradient, first, last);
        rows.moments = {elements(first_moment, first, last), elements(second_moment, first, last)};
        rows.weight = elements(values, first, last);
        OptimizerStep step{context_.options.rule(), static_cast<float>(update.learning_rate * units_[unit].rates[t]),
                           update.number};
        step.gradient_scale = static_cast<float>(update.gradient_scale);
        context_.device.optimizer_step(step, rows);
    }
    for (const TrainedState state : {TrainedState::first_moment, TrainedState::second_moment})
        store_.put_back(unit, state);
    if (is_whole())
        share_unit(unit);
    else
        store_.put_back(unit, TrainedState::values);
}

void TrainedValues::share_unit(std::size_t unit) const {
    if (layout(unit).size() > 0) all_gather(context_.group, units_[unit].whole, parts(unit));
}

void TrainedValues::share() const {
    for (std::size_t u = 0; is_whole() && u < units_.size(); ++u) share_unit(u);
}

void TrainedValues::keep_best() {
    for (std::size_t u = 0; u < units_.size(); ++u) {
        if (is_whole())
            store_.set(u, TrainedState::best_values, part_on_host(u, TrainedState::values));
        else
            store_.keep_best(u);
    }
}

void TrainedValues::restore_best() {
    for (std::size_t u = 0; u < units_.size(); ++u)
        set_part(u, TrainedState::values, part_on_host(u, TrainedState::best_values));
    share();
}

std::vector<float> TrainedValues::part_on_host(std::size_t unit, TrainedState state) const {
    if (!is_whole() || state != TrainedState::values) return store_.on_host(unit, state);
    const TensorView part = part_of(unit);
    std::vector<float> values(part.size());
    if (!values.empty()) context_.device.copy_to_host(part, values.data());
    return values;
}

void TrainedValues::set_part(std::size_t unit, TrainedState state, std::span<const float> part) {
    if (!is_whole() || state != TrainedState::values) return store_.set(unit, state, part);
    const TensorView to = part_of(unit);
    require(part.size() == to.size(), "a rank's part of trained values");
    if (!part.empty()) context_.device.copy_from_host(part.data(), to);
}

}  // namespace espalier
