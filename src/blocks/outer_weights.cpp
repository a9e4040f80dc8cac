#include "src/blocks/outer_weights.h"

#include "src/blocks/outer_rows.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace espalier {

namespace {

Tensor load(Device& device, Communicator& group, const ModelSource& source, OuterTensor tensor, DType dtype,
            const char* name) {
    const std::size_t rows = source.outer_rows(tensor), hidden = source.config().hidden_size;
    Tensor loaded = device.make_tensor(dtype, rows, hidden, name);
    const std::size_t panel = source.outer_panel_rows(tensor);
    for (std::size_t first = 0; first < rows; first += panel) {
        load_outer_rows(device, group, source, tensor, first,
                        loaded.view().row_range(first, std::min(rows, first + panel)));
    }
    return loaded;
}

}  // namespace

OuterWeights::OuterWeights(Device& device, Communicator& group, const ModelSource& source, Parts parts)
    : device_(device),
      epsilon_(source.config().rms_norm_epsilon),
      final_norm_(device.make_tensor(DType::f32, 1, source.config().hidden_size, "final norm")) {
    load_outer_rows(device, group, source, OuterTensor::final_norm, 0, final_norm_);
    const DType stored = source.outer_dtype(OuterTensor::embedding);
    if (parts == Parts::norm) return;
    if (parts != Parts::norm_and_head) {
        // In its own type: rows are widened when they are looked up.
        embedding_ = load(device, group, source, OuterTensor::embedding, stored, "embedding");
    }
    if (parts == Parts::embedding) return;
    const DType of_head = device.compute_dtype(source.outer_dtype(OuterTensor::head));
    if (parts == Parts::all && !source.has_own_head() && of_head == stored) return;
    head_ = load(device, group, source, OuterTensor::head, of_head, "head");
}

void OuterWeights::embed(std::span<const std::int32_t> ids, TensorView x) const {
    std::vector<std::uint32_t> from(ids.begin(), ids.end()), to(ids.size());
    std::iota(to.begin(), to.end(), 0U);
    device_.scatter_rows(embedding_, from, to, x);
}

void OuterWeights::norm(TensorView x, TensorView normed, TensorView inverse_rms) const {
    device_.rms_norm(x, final_norm_, epsilon_, normed, inverse_rms);
}

}  // namespace espalier
