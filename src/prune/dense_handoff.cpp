#include "src/prune/dense_handoff.h"

namespace espalier {

void DenseHandoff::send(Device& device, std::size_t sample, TensorView hidden_states, HiddenStates* local) {
    const int receiver = to_.ranks[topology_.holder_of(to_, sample)];
    if (receiver == world_.rank()) {
        require(local != nullptr, "a place for samples that stay on this rank");
        if (local->on_host())
            local->write_back(sample, hidden_states);
        else
            device.copy(hidden_states, local->sample(sample));
        return;
    }
    const std::vector<Message> message = {{receiver, hidden_states.data, hidden_states.bytes()}};
    sending_.push_back(world_.start_exchange(message, {}));
}

void DenseHandoff::receive(Device& device, HiddenStates& destination) {
    if (destination.on_host()) return receive_one_by_one(device, destination);
    std::vector<Message> messages;
    for (std::size_t n = destination.samples().begin; n < destination.samples().end; ++n) {
        const int sender = from_.ranks[topology_.holder_of(from_, n)];
        const TensorView place = destination.sample(n);
        if (sender != world_.rank()) messages.push_back({sender, place.data, place.bytes()});
    }
    world_.start_exchange({}, messages)->finish();
}

void DenseHandoff::receive_one_by_one(Device& device, HiddenStates& destination) {
    const Tensor arriving = device.make_tensor(destination.dtype(), destination.tokens(), destination.all().columns);
    for (std::size_t n = destination.samples().begin; n < destination.samples().end; ++n) {
        const int sender = from_.ranks[topology_.holder_of(from_, n)];
        if (sender == world_.rank()) continue;
        const std::vector<Message> message = {{sender, arriving.view().data, arriving.view().bytes()}};
        world_.start_exchange({}, message)->finish();
        device.wait_for_copy(destination.write_back(n, arriving));
    }
}

void DenseHandoff::finish() {
    for (const auto& exchange : sending_) exchange->finish();
    sending_.clear();
}

}  // namespace espalier
