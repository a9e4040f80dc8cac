#include "src/method/output_error.h"

#include "kernels/device_numbers.h"
#include "src/samples/sample_reader.h"

namespace espalier {

double relative_output_error(const GroupContext& context, DecoderBlock& decoder, const BlockWeights& weights,
                             const HiddenStates& x, const DenseOutputs& dense_outputs,
                             const std::vector<std::size_t>& samples) {
    const Tensor output =
        context.device.make_tensor(DType::f32, context.tokens, context.config.hidden_size, "outputs of a sample");
    const std::vector<std::size_t> mine = context.mine_of(samples);
    const DeviceSums errors(context.device, mine.size()), norms(context.device, mine.size());
    SampleReader inputs(context.device, x, mine), kept_outputs(context.device, dense_outputs.kept(), mine);
    for (std::size_t i = 0; i < mine.size(); ++i) {
        const TensorView input = inputs.next();
        decoder.forward(weights, input, output, nullptr);
        const TensorView dense_output = dense_outputs.restored(kept_outputs.next(), input);
        context.device.squared_error(output, dense_output, errors.at(i));
        context.device.square_sum(dense_output, norms.at(i));
    }
    const double error = sum_in_sample_order(context, samples, errors.read());
    const double norm = sum_in_sample_order(context, samples, norms.read());
    return norm > 0 ? error / norm : error;
}

}  // namespace espalier
