#pragma once
/// The device under test and the way of test data to it and back. Tests of kernels use nothing else, so that the same
/// source runs for any device.

#include "kernels/device.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace espalier::support {

std::unique_ptr<Device> make_test_device(int threads = 2);

/// A tensor with these values; float32 for floats, uint8 for masks.
Tensor upload(Device& device, std::size_t rows, std::size_t columns, std::span<const float> values);
Tensor upload_bytes(Device& device, std::size_t rows, std::size_t columns, std::span<const std::uint8_t> values);
/// A float32 tensor filled with NaN: an output that a kernel forgets to write shows.
Tensor make_poisoned(Device& device, std::size_t rows, std::size_t columns);

std::vector<float> download(Device& device, TensorView tensor);
std::vector<std::uint8_t> download_bytes(Device& device, TensorView tensor);

/// The bit patterns of float32 values, to compare results exactly: -0 differs from 0, a NaN equals itself.
std::vector<std::uint32_t> bits_of(std::span<const float> values);

}  // namespace espalier::support
