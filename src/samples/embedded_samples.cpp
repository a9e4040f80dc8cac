#include "src/samples/embedded_samples.h"

#include "src/weights/embedding.h"

#include <algorithm>

namespace espalier {

void embed_samples(Device& device, const ModelSource& source, std::span<const std::int32_t> ids, HiddenStates& x) {
    const std::size_t length = x.tokens(), hidden = x.all().columns;
    const IndexRange samples = x.samples();
    if (samples.size() == 0) return;
    if (!x.on_host()) {
        embed_tokens(device, source, ids.subspan(samples.begin * length, samples.size() * length), x.all());
        return;
    }
    // The embedding is read anew for every batch.
    constexpr std::size_t most_bytes = std::size_t{1} << 30;
    const std::size_t left = device.memory().left();
    const std::size_t batch =
        std::clamp<std::size_t>(std::min(most_bytes, left / 2) / (length * hidden * sizeof(float)), 1, samples.size());
    const Tensor states = device.make_tensor(DType::f32, batch * length, hidden, samples_on_their_way);
    for (std::size_t first = samples.begin; first < samples.end; first += batch) {
        const std::size_t count = std::min(batch, samples.end - first);
        embed_tokens(device, source, ids.subspan(first * length, count * length),
                     states.view().row_range(0, count * length));
        for (std::size_t i = 0; i < count; ++i) {
            x.write_back(first + i, states.view().row_range(i * length, (i + 1) * length));
        }
        device.wait_for_copy(device.last_copy());
    }
}

}  // namespace espalier
