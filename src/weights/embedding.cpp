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
    std::vector<std::byte> rows_read;
    std::vector<std::uint32_t> source_rows, rows_filled;
    for (std::size_t i = 0; i < order.size();) {
        const std::size_t first = static_cast<std::size_t>(tokens[order[i]]) / panel_rows * panel_rows;
        const std::size_t rows = std::min(panel_rows, source.outer_rows(OuterTensor::embedding) - first);
        rows_read.resize(rows * row_bytes);
        source.read_outer_rows(OuterTensor::embedding, first, rows, rows_read);
        source_rows.clear();
        rows_filled.clear();
        for (; i < order.size() && static_cast<std::size_t>(tokens[order[i]]) < first + rows; ++i) {
            source_rows.push_back(static_cast<std::uint32_t>(static_cast<std::size_t>(tokens[order[i]]) - first));
            rows_filled.push_back(static_cast<std::uint32_t>(order[i]));
        }
        const Tensor panel = device.make_tensor(dtype, rows, hidden, "rows of the embedding");
        device.copy_from_host(rows_read.data(), panel);
        device.scatter_rows(panel, source_rows, rows_filled, hidden_states);
    }
}

}  // namespace espalier
