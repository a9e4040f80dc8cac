#include "src/samples/dense_outputs.h"

namespace espalier {

DenseOutputs::DenseOutputs(Device& device, IndexRange samples, std::size_t tokens, std::size_t hidden, DType weights,
                           StoragePlace place)
    : device_(device),
      kept_(device, samples, tokens, hidden, weights == DType::f32 ? DType::f32 : DType::bf16, place, "dense outputs") {
    if (!is_whole_on_device()) whole_ = device.make_tensor(DType::f32, tokens, hidden, "outputs of a sample");
    if (!kept_.on_host()) return;
    for (Tensor& buffer : leaving_) buffer = device.make_tensor(kept_.dtype(), tokens, hidden, samples_on_their_way);
}

void DenseOutputs::keep(std::size_t sample, TensorView x) {
    if (is_whole_on_device()) return;
    TensorView place = kept_.sample(sample);
    if (kept_.on_host()) {
        turn_ = 1 - turn_;
        device_.wait_for_copy(copies_[turn_]);
        place = leaving_[turn_];
    }
    if (is_whole())
        device_.copy(whole_, place);
    else
        device_.subtract(whole_, x, place);
    copies_[turn_] = kept_.write_back(sample, place);
}

TensorView DenseOutputs::restored(TensorView kept, TensorView x) const {
    if (is_whole()) return kept;
    device_.sum(x, kept, whole_);
    return whole_;
}

}  // namespace espalier
