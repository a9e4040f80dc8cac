#include "src/prune/block_step.h"

#include "src/base/stop_request.h"
#include "src/method/rounding_loss.h"
#include "src/weights/model_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <vector>

namespace espalier {

bool BlockStep::should_stop(Communicator& ranks) {
    const std::vector<char> asked = ranks.all_gather_value(static_cast<char>(stop_requested()));
    return std::find(asked.begin(), asked.end(), 1) != asked.end();
}

PrunedBlock BlockStep::take(std::size_t block, const BlockPart& part, HiddenStates& x) {
    c_.loader.load(c_.stored, block, part, c_.weights);
    c_.clock.mark("load");
    if (c_.options.prunes(block)) {
        PrunedBlock result = c_.pruner.prune(block, c_.weights, x);
        if (c_.options.method.optimises_regionally()) measure_rounding(part, result);
        return result;
    }
    c_.pruner.propagate_dense(c_.weights);
    // A block that is copied goes on with the values that are written.
    Device& device = c_.group.device;
    const DType output = c_.options.output_dtype;
    if (c_.weights.dtype() == DType::f32) device.round_to(output, c_.weights.matrices.all());
    refuse_overflow(device, c_.group.layout, output, block, c_.weights);
    c_.pruner.propagate(c_.weights, x);
    PrunedBlock result;
    result.report.block = block;
    result.report.pruned = false;
    return result;
}

void BlockStep::measure_rounding(const BlockPart& part, PrunedBlock& result) {
    const double share = unchanged_weight_share(c_.group, part, c_.options.output_dtype, c_.weights, result.mask);
    c_.clock.mark("rounding_loss");
    result.report.unchanged_weight_share = share;
    if (result.report.block != c_.options.first_pruned_block() || share < 0.1) return;
    result.sentences.push_back(
        fmt::format("warning: {} rounds {:.0f} % of the surviving weights of block {} back to their dense values: "
                    "so much of regional optimisation is lost (--ro-learning-rate auto finds a rate that moves them, "
                    "--output-dtype float32 keeps it)",
                    name_of(c_.written.matrix_dtype), 100 * share, result.report.block));
}

BlockToWrite BlockStep::copy_to_host(const PrunedBlock& result, const BlockPart& part) const {
    Device& device = c_.group.device;
    const BlockLayout& layout = c_.group.layout;
    BlockToWrite out;
    out.block = result.report.block;
    out.storage = c_.written;
    out.tensors = HostBuffer(device, c_.written.total_bytes(layout));
    device.convert(c_.weights.matrices.all(), out.tensors.view(c_.written.matrix_dtype, 0, 1, layout.weights()));
    // Vectors keep the bits they were read with.
    const std::span<const std::byte> vectors = part.vectors();
    std::copy(vectors.begin(), vectors.end(), out.tensors.bytes().subspan(c_.written.matrix_bytes(layout)).begin());
    if (result.report.pruned) {
        out.mask = HostBuffer(device, layout.weights());
        device.copy(result.mask.all(), out.mask.view(DType::u8, 0, 1, layout.weights()));
    }
    device.synchronize();
    return out;
}

}  // namespace espalier
