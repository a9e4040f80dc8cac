#include "src/prune/dense_handoff.h"

namespace espalier {

void DenseHandoff::send(Device& device, std::size_t sample, TensorView hidden_states, HiddenStates* local) {
    const int receiver = to_.ranks[topology_.holder_of(to_, sample)];
    if (receiver == world_.rank()) {
        require(local != nullptr, "a place for samples that stay on this rank");
        device.copy(hidden_states, local->sample(sample));
        return;
    }
    const std::vector<Message> message = {{receiver, hidden_states.data, hidden_states.bytes()}};
    sending_.push_back(world_.start_exchange(message, {}));
}

void DenseHandoff::receive(HiddenStates& destination) {
    std::vector<Message> messages;
    for (std::size_t n = destination.samples().begin; n < destination.samples().end; ++n) {
        const int sender = from_.ranks[topology_.holder_of(from_, n)];
        const TensorView place = destination.sample(n);
        if (sender != world_.rank()) messages.push_back({sender, place.data, place.bytes()});
    }
    world_.start_exchange({}, messages)->finish();
}

void DenseHandoff::finish() {
    for (const auto& exchange : sending_) exchange->finish();
    sending_.clear();
}

}  // namespace espalier
