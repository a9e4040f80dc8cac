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

/// The device that ESPALIER_TEST_DEVICE names: cpu (also when it is not set) with `threads` threads, or cuda.
std::unique_ptr<Device> make_test_device(int threads = 2);
bool test_device_is_gpu();

/// A tensor with these values; float32 for floats, uint8 for masks.
Tensor upload(Device& device, std::size_t rows, std::size_t columns, std::span<const float> values);
Tensor upload_bytes(Device& device, std::size_t rows, std::size_t columns, std::span<const std::uint8_t> values);
/// A float32 tensor filled with NaN: an output that a kernel forgets to write shows.
Tensor make_poisoned(Device& device, std::size_t rows, std::size_t columns);

std::vector<float> download(Device& device, TensorView tensor);
std::vector<std::uint8_t> download_bytes(Device& device, TensorView tensor);

/// Operations that leave a number on the device, with the number.
double square_sum_of(Device& device, TensorView x);
double squared_error_of(Device& device, TensorView y, TensorView target);
std::size_t nonfinite_in(Device& device, TensorView x);
void frobenius_direction_of(Device& device, TensorView y, TensorView direction);
std::size_t score_and_mask_counting(Device& device, const ScoreTerms& terms, const PruningPattern& pattern,
                                    TensorView weight, TensorView mask);
/// One RMSprop step; `mask` and `rounded` may be empty.
void rmsprop_step(Device& device, float learning_rate, const Rmsprop& rule, TensorView gradient, TensorView mask,
                  TensorView square_average, TensorView weight, TensorView rounded);
std::size_t sweep_counting(Device& device, TensorView factor, TensorView dead_inputs, const PruningPattern& pattern,
                           TensorView weight, TensorView mask, SweepMask origin = SweepMask::chosen);

/// The bit patterns of float32 values, to compare results exactly: -0 differs from 0, a NaN equals itself.
std::vector<std::uint32_t> bits_of(std::span<const float> values);

}  // namespace espalier::support
