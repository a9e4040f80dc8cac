#include "src/weights/embedding.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace espalier {

void embed_tokens(Device& device, const ModelSource& source, std::span<const std::int32_t> tokens,
                  TensorView hidden_states) {
    require(hidden_states.rows == tokens.size(), "a row for every token");
    const std::size_t hidden = source.config().hidden_size;
    const DType dtype = source.outer_dtype(OuterTensor::embedding);
    const std::size_t row_bytes = source.outer_row_bytes(OuterTensor::embedding);
    const std::size_t panel_rows = source.outer_panel_rows(OuterTensor::embedding);
    // Positions by token id, so that each panel of the table serves a run of them.
    std::vector<std::size_t> order(tokens.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return tokens[a] < tokens[b]; });
    std::vector<std::byte> panel;
    std::vector<float> row(hidden);
    for (std::size_t i = 0; i < order.size();) {
        const std::size_t first = static_cast<std::size_t>(tokens[order[i]]) / panel_rows * panel_rows;
        const std::size_t rows = std::min(panel_rows, source.outer_rows(OuterTensor::embedding) - first);
        panel.resize(rows * row_bytes);
        source.read_outer_rows(OuterTensor::embedding, first, rows, panel);
        for (; i < order.size() && static_cast<std::size_t>(tokens[order[i]]) < first + rows; ++i) {
            const std::size_t place = static_cast<std::size_t>(tokens[order[i]]) - first;
            widen_to_float(dtype, panel.data() + place * row_bytes, hidden, row.data());
            device.copy_from_host(row.data(), hidden_states.row_range(order[i], order[i] + 1));
        }
    }
}

}  // namespace espalier
