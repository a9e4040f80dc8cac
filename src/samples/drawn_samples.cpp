#include "src/samples/drawn_samples.h"

#include <algorithm>

namespace espalier {

StepAssignment StepAssignment::spread(std::size_t ranks, std::size_t at_once) {
    return {ranks, false, 0, at_once};
}

StepAssignment StepAssignment::all_on(std::size_t ranks, std::size_t only) {
    return {ranks, true, only, 1};
}

std::vector<std::size_t> StepAssignment::offsets(std::size_t batch) const {
    std::vector<std::size_t> offsets(ranks_ + 1, 0);
    const std::size_t passes = (batch + at_once_ - 1) / at_once_, computing = std::min(passes, ranks_);
    for (std::size_t r = 0; r < ranks_; ++r) {
        if (alone_)
            offsets[r + 1] = r >= only_ ? batch : 0;
        else
            offsets[r + 1] = r < computing ? std::min(batch, part_of(passes, computing, r).end * at_once_) : batch;
    }
    return offsets;
}

std::size_t StepAssignment::most_of(std::size_t rank, std::size_t batch, std::size_t samples) const {
    std::size_t most = 0;
    for (const std::size_t size : {samples < batch ? 0 : batch, samples % batch}) {
        const std::vector<std::size_t> positions = offsets(size);
        most = std::max(most, positions[rank + 1] - positions[rank]);
    }
    return most;
}

DrawnSamples::DrawnSamples(const GroupContext& context, const HiddenStates& x, const DenseOutputs& dense_outputs,
                           std::vector<std::size_t> draws, std::size_t batch, StepAssignment assignment)
    : context_(context),
      x_(x),
      dense_outputs_(dense_outputs),
      draws_(std::move(draws)),
      batch_(batch),
      assignment_(assignment) {
    // Whatever is drawn, so that a run's memory is known before it. From host memory come those that are computed here
    // and those that are sent from here.
    const std::size_t largest = std::min(batch, draws_.size());
    const std::size_t from_other_ranks =
        context.ranks() == 1 ? 0 : assignment_.most_of(context.me(), batch, draws_.size());
    const std::size_t most = x.on_host() ? largest : from_other_ranks;
    for (std::size_t i = 0; i < std::min(slots_.size(), steps()); ++i) {
        const auto make = [&](DType dtype) {
            return context.device.make_tensor(dtype, context.tokens, context.config.hidden_size,
                                              "samples of two steps");
        };
        for (std::size_t n = 0; n < most; ++n) {
            slots_[i].x.push_back(make(x.dtype()));
            slots_[i].outputs.push_back(make(dense_outputs.kept().dtype()));
        }
    }
    if (steps() > 0) start(0);
}

std::size_t DrawnSamples::size_of_step(std::size_t step) const {
    return std::min(batch_, draws_.size() - step * batch_);
}

StepSample DrawnSamples::next_buffers(Slot& slot) {
    require(slot.used < slot.x.size(), "room for the samples of a step");
    ++slot.used;
    return {slot.x[slot.used - 1], slot.outputs[slot.used - 1]};
}

StepSample DrawnSamples::on_device(std::size_t sample, Slot& slot) {
    const TensorView x = x_.sample(sample), output = dense_outputs_.kept().sample(sample);
    if (!x_.on_host()) return {x, output};
    const StepSample copied = next_buffers(slot);
    context_.device.start_copy(x, copied.x);
    slot.copy = context_.device.start_copy(output, copied.kept_output);
    return copied;
}

void DrawnSamples::start(std::size_t step) {
    Slot& slot = slots_[step % 2];
    slot.samples.clear();
    slot.used = 0;
    slot.copy = 0;
    const std::vector<std::size_t> offsets = offsets_of_step(step);
    std::vector<Message> sends, receives;
    const auto add_messages = [](std::vector<Message>& messages, std::size_t rank, const StepSample& sample) {
        for (const TensorView part : {sample.x, sample.kept_output}) {
            messages.push_back({static_cast<int>(rank), part.data, part.bytes()});
        }
    };
    for (std::size_t r = 0; r < context_.ranks(); ++r) {
        for (std::size_t position = offsets[r]; position < offsets[r + 1]; ++position) {
            const std::size_t sample = draws_[step * batch_ + position], holder = context_.holder_of(sample);
            if (r == context_.me()) {
                slot.samples.push_back(holder == r ? on_device(sample, slot) : next_buffers(slot));
                if (holder != r) add_messages(receives, holder, slot.samples.back());
            } else if (holder == context_.me()) {
                add_messages(sends, r, on_device(sample, slot));
            }
        }
    }
    if (!sends.empty()) context_.device.wait_for_copy(slot.copy);
    slot.exchange = context_.group.start_exchange(sends, receives);
}

std::vector<StepSample> DrawnSamples::take(std::size_t step) {
    if (step + 1 < steps()) start(step + 1);
    Slot& slot = slots_[step % 2];
    slot.exchange->finish();
    context_.device.wait_for_copy(slot.copy);
    return slot.samples;
}

}  // namespace espalier
