#include "src/method/input_norms.h"

#include "kernels/device_numbers.h"
#include "mpi/tensor_collectives.h"
#include "src/base/error.h"

#include <string>

namespace espalier {

TensorView InputNorms::of(LinearInput input) const {
    const InputShape& shape = layout_->input(input);
    return {all_.view().data + shape.offset * sizeof(float), DType::f32, 1, shape.width};
}

InputNormCollector::InputNormCollector(const GroupContext& context)
    : context_(context),
      held_(context.my_samples()),
      sums_(context.device.make_tensor(DType::f32, held_.size(), context.layout.total_input_width(), "input norms")) {}

void InputNormCollector::observe(LinearInput input, TensorView x) {
    const TensorView row = sums_.view().row_range(sample_ - held_.begin, sample_ - held_.begin + 1);
    const std::size_t offset = context_.layout.input(input).offset;
    context_.device.column_square_sums(x, {row.data + offset * sizeof(float), DType::f32, 1, x.columns});
}

InputNorms InputNormCollector::gather(const std::vector<std::size_t>& samples, InputNorm kind,
                                      std::size_t block) const {
    const std::size_t width = context_.layout.total_input_width();
    const std::vector<std::size_t> offsets = sample_offsets(context_, samples, width);
    const Tensor gathered = context_.device.make_tensor(DType::f32, samples.size(), width, "input norms");
    std::size_t row = offsets[context_.me()] / width;
    for (const std::size_t sample : context_.mine_of(samples)) {
        context_.device.copy(sums_.view().row_range(sample - held_.begin, sample - held_.begin + 1),
                             gathered.view().row_range(row, row + 1));
        ++row;
    }
    all_gather(context_.group, gathered, offsets);
    const double scale = kind == InputNorm::mean ? 1.0 / static_cast<double>(samples.size()) : 1.0;
    Tensor roots = context_.device.make_tensor(DType::f32, 1, width, "input norms");
    context_.device.column_sum_roots(gathered, scale, roots);
    InputNorms norms(context_.layout, std::move(roots));
    refuse_nonfinite(norms, block);
    return norms;
}

void InputNormCollector::refuse_nonfinite(const InputNorms& norms, std::size_t block) const {
    const DeviceCounters counters(context_.device, context_.layout.linear_inputs().size());
    for (const LinearInput input : context_.layout.linear_inputs()) {
        context_.device.count_nonfinite(norms.of(input), counters.at(index_of(input)));
    }
    const std::vector<std::uint64_t> counts = counters.read();
    for (const LinearInput input : context_.layout.linear_inputs()) {
        const std::uint64_t count = counts[index_of(input)];
        if (count == 0) continue;
        throw NonFiniteError("block " + std::to_string(block) + ": the activations that enter " +
                             context_.layout.input_name(input) + " are not finite (" + std::to_string(count) +
                             " channels); the model overflows on these calibration tokens, or --ro-learning-rate is "
                             "too large");
    }
}

}  // namespace espalier
