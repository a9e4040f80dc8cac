#include "src/blocks/outer_rows.h"

#include "mpi/tensor_collectives.h"

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

}  // namespace espalier
