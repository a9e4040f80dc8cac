#pragma once
/// How the ranks bring tensors outside of the blocks to their devices: one reads, and sends it to the others.

#include "kernels/device.h"
#include "mpi/communicator.h"
#include "src/weights/model_source.h"

#include <cstddef>

namespace espalier {

/// Rows from `first` on of an outer tensor into `rows`, on the device of every rank, widened or not as its type is:
/// float32 or that of the file. Rank 0 reads. Collective.
void load_outer_rows(Device& device, Communicator& group, const ModelSource& source, OuterTensor tensor,
                     std::size_t first, TensorView rows);

/// Two models hold the same values of an outer tensor, in the same type. Reads both.
bool have_same_outer(const ModelSource& one, const ModelSource& other, OuterTensor tensor);

}  // namespace espalier
