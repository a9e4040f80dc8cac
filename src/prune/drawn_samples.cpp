#include "src/prune/drawn_samples.h"

#include <algorithm>

namespace espalier {

StepAssignment StepAssignment::spread(std::size_t ranks) {
    return {ranks, false, 0};
}

StepAssignment StepAssignment::all_on(std::size_t ranks, std::size_t only) {
    return {ranks, true, only};
}

std::vector<std::size_t> StepAssignment::offsets(std::size_t batch) const {
    std::vector<std::size_t> offsets(ranks_ + 1, 0);
    const std::size_t computing = std::min(batch, ranks_);
    for (std::size_t r = 0; r < ranks_; ++r) {
        if (alone_)
            offsets[r + 1] = r >= only_ ? batch : 0;
        else
            offsets[r + 1] = r < computing ? part_of(batch, computing, r).end : batch;
    }
    return offsets;
}

DrawnSamples::DrawnSamples(const GroupContext& context, const HiddenStates& x, const DenseOutputs& dense_outputs,
                           std::vector<std::size_t> draws, std::size_t batch, StepAssignment assignment)
    : context_(context),
      x_(x),
      dense_outputs_(dense_outputs),
      draws_(std::move(draws)),
      batch_(batch),
      assignment_(assignment) {
    if (steps() > 0) start(0);
}

std::size_t DrawnSamples::size_of_step(std::size_t step) const {
    return std::min(batch_, draws_.size() - step * batch_);
}

void DrawnSamples::start(std::size_t step) {
    Slot& slot = slots_[step % 2];
    slot.samples.clear();
    std::size_t used = 0;
    const auto next_buffers = [&]() -> StepSample {
        if (used == slot.x.size()) {
            const std::size_t tokens = context_.tokens, hidden = context_.config.hidden_size;
            slot.x.push_back(context_.device.make_tensor(DType::f32, tokens, hidden));
            slot.outputs.push_back(context_.device.make_tensor(dense_outputs_.kept_dtype(), tokens, hidden));
        }
        ++used;
        return {slot.x[used - 1], slot.outputs[used - 1]};
    };
    const std::vector<std::size_t> offsets = offsets_of_step(step);
    std::vector<Message> sends, receives;
    for (std::size_t r = 0; r < context_.ranks(); ++r) {
        for (std::size_t position = offsets[r]; position < offsets[r + 1]; ++position) {
            const std::size_t sample = draws_[step * batch_ + position];
            const std::size_t holder = context_.holder_of(sample);
            if (r == context_.me() && holder == r) {
                slot.samples.push_back({x_.sample(sample), dense_outputs_.kept(sample)});
            } else if (r == context_.me()) {
                const StepSample arriving = next_buffers();
                for (const TensorView part : {arriving.x, arriving.kept_output}) {
                    receives.push_back({static_cast<int>(holder), part.data, part.bytes()});
                }
                slot.samples.push_back(arriving);
            } else if (holder == context_.me()) {
                for (const TensorView part : {x_.sample(sample), dense_outputs_.kept(sample)}) {
                    sends.push_back({static_cast<int>(r), part.data, part.bytes()});
                }
            }
        }
    }
    slot.exchange = context_.group.start_exchange(sends, receives);
}

std::vector<StepSample> DrawnSamples::take(std::size_t step) {
    if (step + 1 < steps()) start(step + 1);
    Slot& slot = slots_[step % 2];
    slot.exchange->finish();
    return slot.samples;
}

}  // namespace espalier
