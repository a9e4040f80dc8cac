#include "src/method/rounding_loss.h"

#include "kernels/device_numbers.h"

#include <algorithm>
#include <array>

namespace espalier {

namespace {

/// Dense weights come back to the device in pieces: a large matrix would need much memory beside the hidden states.
constexpr std::size_t piece_bytes = std::size_t{64} << 20;

}  // namespace

double unchanged_weight_share(const GroupContext& context, const BlockPart& dense, DType output,
                              const BlockWeights& weights, const BlockTensor& mask) {
    Device& device = context.device;
    const DeviceCounters counters(device, 2);
    dense.for_each_slice([&](const RowSlice& slice, TensorView stored) {
        const std::size_t row_bytes = stored.columns * bytes_of(weights.dtype());
        const std::size_t rows = std::clamp<std::size_t>(piece_bytes / row_bytes, 1, slice.rows());
        const Tensor before =
            device.make_tensor(weights.dtype(), rows, stored.columns, "dense weights to compare with");
        for (std::size_t first = 0; first < slice.rows(); first += rows) {
            const std::size_t count = std::min(rows, slice.rows() - first), row = slice.row_begin + first;
            const TensorView piece = before.view().row_range(0, count);
            device.convert(stored.row_range(first, first + count), piece);
            if (piece.dtype == DType::f32) device.round_to(output, piece);
            device.count_unchanged(weights.matrices.matrix(slice.layer).row_range(row, row + count), piece,
                                   mask.matrix(slice.layer).row_range(row, row + count), counters.at(0),
                                   counters.at(1));
        }
    });
    const std::vector<std::uint64_t> mine = counters.read();
    std::uint64_t kept = 0, unchanged = 0;
    for (const auto& counts : context.control.all_gather_value(std::array{mine[0], mine[1]})) {
        kept += counts[0];
        unchanged += counts[1];
    }
    return kept == 0 ? 0.0 : static_cast<double>(unchanged) / static_cast<double>(kept);
}

}  // namespace espalier
