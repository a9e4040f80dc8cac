#include "src/prune/output_error.h"

namespace espalier {

double relative_output_error(const GroupContext& context, DecoderBlock& decoder, const BlockWeights& weights,
                             const HiddenStates& x, const HiddenStates& dense_outputs,
                             const std::vector<std::size_t>& samples) {
    const Tensor output = context.device.make_tensor(DType::f32, context.tokens, context.config.hidden_size);
    std::vector<double> errors, norms;
    for (const std::size_t sample : samples) {
        if (!context.my_samples().contains(sample)) continue;
        decoder.forward(weights, x.sample(sample), output, nullptr);
        errors.push_back(context.device.squared_error(output, dense_outputs.sample(sample)));
        norms.push_back(context.device.square_sum(dense_outputs.sample(sample)));
    }
    const double error = sum_in_sample_order(context, samples, errors);
    const double norm = sum_in_sample_order(context, samples, norms);
    return norm > 0 ? error / norm : error;
}

}  // namespace espalier
