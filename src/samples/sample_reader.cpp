#include "src/samples/sample_reader.h"

#include "src/base/error.h"

#include <algorithm>
#include <numeric>

namespace espalier {

SampleReader::SampleReader(Device& device, const SampleStore& store, std::vector<std::size_t> order)
    : device_(device), store_(store), order_(std::move(order)) {
    if (!store.on_host()) return;
    // As many for a few samples as for all that are held: what a run needs does not depend on what is drawn.
    for (std::size_t i = 0; i < std::min(buffers, store.samples().size()); ++i) {
        buffers_[i] = device.make_tensor(store.dtype(), store.tokens(), store.all().columns, samples_on_their_way);
    }
}

SampleReader::~SampleReader() {
    // The buffers go back to the device: what is copied to or from them must be done by then.
    if (started_ == 0) return;
    try {
        device_.wait_for_copy(device_.last_copy());
    } catch (const Error&) {  // a failed GPU has been or will be reported by what uses it
    }
}

TensorView SampleReader::next() {
    require(taken_ < order_.size(), "a sample that is left to read");
    if (!store_.on_host()) return store_.sample(order_[taken_++]);
    // Into the buffer of the sample handed out last: all operations on that are under way by now.
    for (; started_ < std::min(order_.size(), taken_ + buffers); ++started_) {
        copies_[started_ % buffers] = device_.start_copy(store_.sample(order_[started_]), buffers_[started_ % buffers]);
    }
    const std::size_t buffer = taken_++ % buffers;
    device_.wait_for_copy(copies_[buffer]);
    return buffers_[buffer];
}

std::vector<std::size_t> all_samples_of(const SampleStore& store) {
    std::vector<std::size_t> samples(store.samples().size());
    std::iota(samples.begin(), samples.end(), store.samples().begin);
    return samples;
}

}  // namespace espalier
