#pragma once
/// How large the weights of a tensor are: what learning rates are relative to.

#include "kernels/device.h"

#include <span>
#include <vector>

namespace espalier {

/// The root mean square of the values that are not zero, of each tensor; 0 where there are none. `scratch`: float32
/// memory for as many values as the largest tensor has, when one of them is of a 16-bit type; it may be empty
/// otherwise. Waits for the device.
std::vector<double> sizes_of_nonzero(Device& device, std::span<const TensorView> tensors, TensorView scratch);

}  // namespace espalier
