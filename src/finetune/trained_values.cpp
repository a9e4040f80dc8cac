#include "src/finetune/trained_values.h"

#include "kernels/device_numbers.h"
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

TrainedValues::TrainedValues(const TrainingContext& context)
    : context_(context),
      ranks_(context.ranks()),
      block_(TrainedLayout::of_block(context.student.layout(), context.options)),
      end_(TrainedLayout::of_end(context.student.layout(), context.options, context.hidden_size())),
      units_(context.blocks() + 1) {
    Device& device = context.device;
    for (std::size_t u = 0; u < units_.size(); ++u) {
        Unit& unit = units_[u];
        const PartOffsets offsets = parts(u);
        const std::size_t mine = offsets[context.me() + 1] - offsets[context.me()];
        if (is_whole())
            unit.whole = device.make_tensor(DType::f32, 1, layout(u).size(), trained);
        else
            unit.own = device.make_tensor(DType::f32, 1, mine, trained);
        unit.first_moment = device.make_tensor(DType::f32, 1, mine, "optimiser's moments");
        unit.second_moment = device.make_tensor(DType::f32, 1, mine, "optimiser's moments");
        unit.gradient = device.make_tensor(DType::f32, 1, mine, "gradients of trained values");
        device.fill_zero(unit.first_moment);
        device.fill_zero(unit.second_moment);
        unit.rates.assign(layout(u).tensors().size(), 1.0);
    }
}

TensorView TrainedValues::part_of(std::size_t unit) const {
    if (!is_whole()) return units_[unit].own;
    const PartOffsets offsets = parts(unit);
    return elements(units_[unit].whole, offsets[context_.me()], offsets[context_.me() + 1]);
}

TensorView TrainedValues::state_of(std::size_t unit, State state) const {
    switch (state) {
        case State::values:
            return part_of(unit);
        case State::first_moment:
            return units_[unit].first_moment;
        case State::second_moment:
            return units_[unit].second_moment;
    }
    throw BugError("internal error: a state of trained values");
}

void TrainedValues::start(std::size_t block, const BlockWeights& weights, TensorView scratch) {
    Device& device = context_.device;
    Unit& unit = units_[block];
    const PartOffsets offsets = parts(block);
    const auto take = [&](std::size_t t, TensorView from) {
        const TrainedTensor& tensor = block_.tensors()[t];
        if (is_whole()) return device.convert(from, values_of(tensor, unit.whole));
        unit.rates[t] = sizes_of_nonzero(device, {&from, 1}, scratch).front();
        const PartOffsets in_tensor = TrainedLayout::parts_in(tensor, offsets);
        const std::size_t begin = in_tensor[context_.me()], end = in_tensor[context_.me() + 1];
        if (begin == end) return;
        const std::size_t place = tensor.offset + begin - offsets[context_.me()];
        device.convert(elements(from, begin, end), elements(unit.own, place, place + end - begin));
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
}

void TrainedValues::start_end(TensorView final_norm) {
    if (end_.size() == 0) return;
    Unit& unit = units_.back();
    if (is_whole()) return context_.device.copy(final_norm, unit.whole);
    unit.rates[0] = sizes_of_nonzero(context_.device, {&final_norm, 1}, {}).front();
    const PartOffsets offsets = parts(units_.size() - 1);
    const TensorView mine = elements(final_norm, offsets[context_.me()], offsets[context_.me() + 1]);
    if (mine.size() > 0) context_.device.copy(mine, unit.own);
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
    std::vector<std::unique_ptr<Exchange>> exchanges;
    for (const TrainedTensor& tensor : layout(unit).tensors()) {
        const TensorView to = place(tensor).reshaped(1, tensor.size());
        const PartOffsets in_tensor = TrainedLayout::parts_in(tensor, offsets);
        const std::size_t begin = in_tensor[context_.me()], end = in_tensor[context_.me() + 1];
        if (begin < end) {
            const std::size_t first = tensor.offset + begin - offsets[context_.me()];
            context_.device.convert(elements(units_[unit].own, first, first + end - begin), elements(to, begin, end));
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

double TrainedValues::gradient_square_sum() const {
    const std::size_t me = context_.me();
    std::vector<std::vector<std::size_t>> chunks(ranks_,
                                                 std::vector<std::size_t>(units_.size()));  // of each rank's part
    std::vector<std::size_t> offsets = {0};
    for (std::size_t rank = 0; rank < ranks_; ++rank) {
        std::size_t count = 0;
        for (std::size_t u = 0; u < units_.size(); ++u) {
            const PartOffsets in_unit = parts(u);
            const std::size_t size = in_unit[rank + 1] - in_unit[rank], chunk = layout(u).chunk();
            chunks[rank][u] = (size + chunk - 1) / chunk;
            count += chunks[rank][u];
        }
        offsets.push_back(offsets.back() + count);
    }
    const DeviceSums sums(context_.device, std::max<std::size_t>(1, offsets[me + 1] - offsets[me]));
    std::size_t next = 0;
    for (std::size_t u = 0; u < units_.size(); ++u) {
        const TensorView gradient = units_[u].gradient;
        const std::size_t chunk = layout(u).chunk();
        for (std::size_t begin = 0; begin < gradient.size(); begin += chunk) {
            context_.device.square_sum(elements(gradient, begin, std::min(gradient.size(), begin + chunk)),
                                       sums.at(next++));
        }
    }
    const std::vector<double> mine = sums.read();
    std::vector<double> all(offsets.back());
    std::copy_n(mine.begin(), next, all.begin() + static_cast<std::ptrdiff_t>(offsets[me]));
    context_.control.all_gather(std::span(all), offsets);
    // Unit after unit, and in each chunk after chunk: the ranks' parts follow each other.
    std::vector<std::size_t> places(offsets.begin(), offsets.end() - 1);
    double total = 0;
    for (std::size_t u = 0; u < units_.size(); ++u) {
        for (std::size_t rank = 0; rank < ranks_; ++rank) {
            for (std::size_t c = 0; c < chunks[rank][u]; ++c) total += all[places[rank]++];
        }
    }
    return total;
}

void TrainedValues::step(double learning_rate, double gradient_scale, std::size_t number) {
    for (std::size_t u = 0; u < units_.size(); ++u) {
        Unit& unit = units_[u];
        const PartOffsets offsets = parts(u);
        const TensorView values = part_of(u);
        for (std::size_t t = 0; t < layout(u).tensors().size(); ++t) {
            const TrainedTensor& tensor = layout(u).tensors()[t];
            const PartOffsets in_tensor = TrainedLayout::parts_in(tensor, offsets);
            const std::size_t begin = in_tensor[context_.me()], end = in_tensor[context_.me() + 1];
            if (begin == end) continue;
            const std::size_t first = tensor.offset + begin - offsets[context_.me()], last = first + end - begin;
            OptimizedRows rows;
            rows.gradient = elements(unit.gradient, first, last);
            rows.moments = {elements(unit.first_moment, first, last), elements(unit.second_moment, first, last)};
            rows.weight = elements(values, first, last);
            OptimizerStep step{context_.options.rule(), static_cast<float>(learning_rate * unit.rates[t]), number};
            step.gradient_scale = static_cast<float>(gradient_scale);
            context_.device.optimizer_step(step, rows);
        }
    }
    share();
}

void TrainedValues::share() const {
    if (!is_whole()) return;
    for (std::size_t u = 0; u < units_.size(); ++u) {
        if (layout(u).size() > 0) all_gather(context_.group, units_[u].whole, parts(u));
    }
}

std::vector<float> TrainedValues::part_on_host(std::size_t unit, State state) const {
    const TensorView part = state_of(unit, state);
    std::vector<float> values(part.size());
    if (!values.empty()) context_.device.copy_to_host(part, values.data());
    return values;
}

void TrainedValues::set_part(std::size_t unit, State state, std::span<const float> part) {
    const TensorView to = state_of(unit, state);
    require(part.size() == to.size(), "a rank's part of trained values");
    if (!part.empty()) context_.device.copy_from_host(part.data(), to);
}

}  // namespace espalier
