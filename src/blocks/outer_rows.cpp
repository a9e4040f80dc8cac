#include "src/blocks/outer_rows.h"

#include "mpi/tensor_collectives.h"

#include <algorithm>
#include <vector>

namespace espalier {

void load_outer_rows(Device& device, Communicator& group, const ModelSource& source, OuterTensor tensor,
                     std::size_t first, TensorView rows) {
    const DType stored_dtype = source.outer_dtype(tensor);
    // The norm's vector is stored as rows of one element.
    const std::size_t count = tensor == OuterTensor::final_norm ? rows.columns : rows.rows;
    const bool as_stored = stored_dtype == rows.dtype;
    const Tensor own =
        as_stored ? Tensor() : device.make_tensor(stored_dtype, rows.rows, rows.columns, "rows as they are stored");
    const TensorView stored = as_stored ? rows : own.view();
    if (group.rank() == 0) {
        std::vector<std::byte> raw(stored.bytes());
        source.read_outer_rows(tensor, first, count, raw);
        device.copy_from_host(raw.data(), stored);
    }
    broadcast(group, stored, 0);
    if (!as_stored) device.convert(stored, rows);
}

bool have_same_outer(const ModelSource& one, const ModelSource& other, OuterTensor tensor) {
    const std::size_t rows = one.outer_rows(tensor), panel = one.outer_panel_rows(tensor);
    bool same = one.outer_dtype(tensor) == other.outer_dtype(tensor) && rows == other.outer_rows(tensor) &&
                one.outer_columns(tensor) == other.outer_columns(tensor);
    for (std::size_t first = 0; same && first < rows; first += panel) {
        const std::size_t count = std::min(rows - first, panel);
        std::vector<std::byte> of_one(count * one.outer_row_bytes(tensor)), of_other(of_one.size());
        one.read_outer_rows(tensor, first, count, of_one);
        other.read_outer_rows(tensor, first, count, of_other);
        same = of_one == of_other;
    }
    return same;
}

}  // namespace espalier
