#include "src/prune/dense_front.h"

#include "src/samples/pass_through.h"
#include "src/samples/sample_reader.h"

namespace espalier {

void DenseFront::take(const BlockLoader& loader, const BlockStorage& stored, std::size_t block, const BlockPart& part,
                      BlockOnDevice& on_device, const std::function<void(const char*)>& mark) {
    loader.load(stored, block, part, on_device.weights);
    if (mark) mark("load");
    pass_through(device_, on_device.decoder, on_device.weights, states_);
    if (!mark) return;
    device_.synchronize();
    mark("pass");
}

void DenseFront::hand_over(const BlockGroup& group, HiddenStates* destination) {
    SampleReader states(device_, states_, all_samples_of(states_));
    // One order of samples for all ranks: none waits for a message that comes after one it has yet to send.
    for (std::size_t n = 0; n < topology_.samples(); ++n) {
        const int sender = topology_.dense_holder_of(n), receiver = group.ranks[topology_.holder_of(group, n)];
        const bool to_me = receiver == world_.rank();
        require(!to_me || destination != nullptr, "a place for the samples of this rank");
        if (sender == world_.rank()) {
            const TensorView state = states.next();
            if (to_me)
                keep(n, state, *destination);
            else
                send(state, receiver);
        } else if (to_me) {
            receive(n, sender, *destination);
        }
    }
    for (const auto& exchange : under_way_) exchange->finish();
    under_way_.clear();
}

void DenseFront::keep(std::size_t sample, TensorView state, HiddenStates& destination) {
    if (destination.on_host())
        destination.write_back(sample, state);
    else
        device_.copy(state, destination.sample(sample));
}

void DenseFront::send(TensorView state, int receiver) {
    const std::vector<Message> message = {{receiver, state.data, state.bytes()}};
    under_way_.push_back(world_.start_exchange(message, {}));
    if (states_.on_host()) under_way_.back()->finish();  // the reader's buffers are used again
}

void DenseFront::receive(std::size_t sample, int sender, HiddenStates& destination) {
    if (!destination.on_host()) {
        const TensorView place = destination.sample(sample);
        const std::vector<Message> message = {{sender, place.data, place.bytes()}};
        under_way_.push_back(world_.start_exchange({}, message));
        return;
    }
    const Tensor arriving =
        device_.make_tensor(destination.dtype(), destination.tokens(), destination.all().columns, samples_on_their_way);
    const std::vector<Message> message = {{sender, arriving.view().data, arriving.view().bytes()}};
    world_.start_exchange({}, message)->finish();
    device_.wait_for_copy(destination.write_back(sample, arriving));
}

}  // namespace espalier
