#include "src/samples/pass_through.h"

#include "src/samples/sample_reader.h"

namespace espalier {

void pass_through(Device& device, DecoderBlock& decoder, const BlockWeights& weights, HiddenStates& x) {
    SampleReader states(device, x, all_samples_of(x));
    for (std::size_t n = x.samples().begin; n < x.samples().end; ++n) {
        const TensorView state = states.next();
        decoder.forward(weights, state, state, nullptr);
        x.write_back(n, state);
    }
}

}  // namespace espalier
