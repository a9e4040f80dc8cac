#include "src/prune/input_norms.h"

#include "mpi/tensor_collectives.h"
#include "src/base/error.h"

#include <cmath>
#include <string>

namespace espalier {

namespace {
constexpr std::array<const char*, linear_inputs> input_names = {
    "self_attn.q_proj, k_proj and v_proj", "self_attn.o_proj", "mlp.gate_proj and up_proj", "mlp.down_proj"};
}

InputNormCollector::InputNormCollector(const GroupContext& context)
    : context_(context),
      held_(context.my_samples()),
      sums_(context.device.make_tensor(DType::f32, held_.size(), context.layout.total_input_width())) {}

void InputNormCollector::observe(LinearInput input, TensorView x) {
    const TensorView row = sums_.view().row_range(sample_ - held_.begin, sample_ - held_.begin + 1);
    const std::size_t offset = context_.layout.input_offset(input);
    context_.device.column_square_sums(x, {row.data + offset * sizeof(float), DType::f32, 1, x.columns});
}

InputNorms InputNormCollector::gather(const std::vector<std::size_t>& samples, InputNorm kind,
                                      std::size_t block) const {
    const std::size_t width = context_.layout.total_input_width();
    const std::vector<std::size_t> offsets = sample_offsets(context_, samples, width);
    const Tensor gathered = context_.device.make_tensor(DType::f32, samples.size(), width);
    std::size_t row = offsets[context_.me()] / width;
    for (const std::size_t sample : samples) {
        if (!held_.contains(sample)) continue;
        context_.device.copy(sums_.view().row_range(sample - held_.begin, sample - held_.begin + 1),
                             gathered.view().row_range(row, row + 1));
        ++row;
    }
    all_gather(context_.group, gathered, offsets);
    std::vector<float> host(gathered.view().size());
    context_.device.copy_to_host(gathered, host.data());

    std::vector<double> sums(width, 0.0);
    for (std::size_t n = 0; n < samples.size(); ++n) {
        for (std::size_t j = 0; j < width; ++j) sums[j] += static_cast<double>(host[n * width + j]);
    }
    const double scale = kind == InputNorm::mean ? 1.0 / static_cast<double>(samples.size()) : 1.0;
    InputNorms result;
    for (std::size_t input = 0; input < linear_inputs; ++input) {
        const std::size_t offset = context_.layout.input_offset(static_cast<LinearInput>(input));
        std::vector<float> norms(context_.layout.input_width(static_cast<LinearInput>(input)));
        for (std::size_t j = 0; j < norms.size(); ++j) {
            norms[j] = static_cast<float>(std::sqrt(sums[offset + j] * scale));
            if (!std::isfinite(norms[j])) {
                throw NonFiniteError(
                    "block " + std::to_string(block) + ": the activations that enter " + input_names[input] +
                    " are not finite (channel " + std::to_string(j) +
                    "); the model overflows on these calibration tokens, or --ro-learning-rate is too large");
            }
        }
        result.norms[input] = context_.device.make_tensor(DType::f32, 1, norms.size());
        context_.device.copy_from_host(norms.data(), result.norms[input]);
    }
    return result;
}

}  // namespace espalier
