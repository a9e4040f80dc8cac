#pragma once
/// The verbs of a Communicator on tensors of any type. Offsets count elements.

#include "kernels/device.h"
#include "mpi/communicator.h"

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

namespace espalier {

inline std::span<std::byte> bytes_of_tensor(TensorView tensor) {
    return {tensor.data, tensor.bytes()};
}

/// The offsets in bytes.
inline std::vector<std::size_t> byte_offsets(std::span<const std::size_t> offsets, DType dtype) {
    std::vector<std::size_t> bytes(offsets.begin(), offsets.end());
    for (std::size_t& offset : bytes) offset *= bytes_of(dtype);
    return bytes;
}

/// Collective.
inline void broadcast(Communicator& group, TensorView tensor, int root) {
    group.broadcast(bytes_of_tensor(tensor), root);
}

/// Rank r contributes elements [offsets[r], offsets[r + 1]), in place. Collective.
inline void all_gather(Communicator& group, TensorView tensor, std::span<const std::size_t> offsets) {
    group.all_gather(bytes_of_tensor(tensor), byte_offsets(offsets, tensor.dtype));
}

/// The same without waiting: `tensor` is left alone until the exchange is finished.
inline std::unique_ptr<Exchange> start_all_gather(Communicator& group, TensorView tensor,
                                                  std::span<const std::size_t> offsets) {
    return group.start_all_gather(bytes_of_tensor(tensor), byte_offsets(offsets, tensor.dtype));
}

}  // namespace espalier
