#include "tests/support/test_device.h"

#include "kernels/device_numbers.h"

#include <bit>
#include <cstdlib>
#include <limits>
#include <string>

namespace espalier::support {

bool test_device_is_gpu() {
    const char* const name = std::getenv("ESPALIER_TEST_DEVICE");
    return name != nullptr && std::string(name) == "cuda";
}

std::unique_ptr<Device> make_test_device(int threads) {
    return test_device_is_gpu() ? make_cuda_device({}) : make_cpu_device(threads);
}

double square_sum_of(Device& device, TensorView x) {
    const DeviceSums sum(device, 1);
    device.square_sum(x, sum.at(0));
    return sum.read()[0];
}

double squared_error_of(Device& device, TensorView y, TensorView target) {
    const DeviceSums sum(device, 1);
    device.squared_error(y, target, sum.at(0));
    return sum.read()[0];
}

std::size_t nonfinite_in(Device& device, TensorView x) {
    const DeviceCounters count(device, 1);
    device.count_nonfinite(x, count.at(0));
    return count.read()[0];
}

void frobenius_direction_of(Device& device, TensorView y, TensorView direction) {
    const DeviceSums sum(device, 1);
    device.square_sum(y, sum.at(0));
    device.frobenius_direction(y, sum.at(0), 1.0F, direction);
}

std::size_t score_and_mask_counting(Device& device, const ScoreTerms& terms, const PruningPattern& pattern,
                                    TensorView weight, TensorView mask) {
    const DeviceCounters unusable(device, 1);
    device.score_and_mask(terms, pattern, weight, mask, unusable.at(0));
    return unusable.read()[0];
}

void rmsprop_step(Device& device, float learning_rate, const Rmsprop& rule, TensorView gradient, TensorView mask,
                  TensorView square_average, TensorView weight, TensorView rounded) {
    device.optimizer_step({rule, learning_rate}, {gradient, mask, {square_average}, weight, rounded});
}

std::size_t sweep_counting(Device& device, TensorView factor, TensorView dead_inputs, const PruningPattern& pattern,
                           TensorView weight, TensorView mask, SweepMask origin) {
    const DeviceCounters unusable(device, 1);
    device.sparsegpt_sweep(factor, dead_inputs, pattern, origin, weight, mask, unusable.at(0));
    return unusable.read()[0];
}

Tensor upload(Device& device, std::size_t rows, std::size_t columns, std::span<const float> values) {
    require(values.size() == rows * columns, "as many values as the tensor has");
    Tensor tensor = device.make_tensor(DType::f32, rows, columns, "test");
    device.copy_from_host(values.data(), tensor);
    return tensor;
}

Tensor upload_bytes(Device& device, std::size_t rows, std::size_t columns, std::span<const std::uint8_t> values) {
    require(values.size() == rows * columns, "as many values as the tensor has");
    Tensor tensor = device.make_tensor(DType::u8, rows, columns, "test");
    device.copy_from_host(values.data(), tensor);
    return tensor;
}

Tensor make_poisoned(Device& device, std::size_t rows, std::size_t columns) {
    const std::vector<float> poison(rows * columns, std::numeric_limits<float>::quiet_NaN());
    return upload(device, rows, columns, poison);
}

std::vector<float> download(Device& device, TensorView tensor) {
    require(tensor.dtype == DType::f32, "a float32 tensor");
    std::vector<float> values(tensor.size());
    device.copy_to_host(tensor, values.data());
    return values;
}

std::vector<std::uint8_t> download_bytes(Device& device, TensorView tensor) {
    std::vector<std::uint8_t> values(tensor.bytes());
    device.copy_to_host(tensor, values.data());
    return values;
}

std::vector<std::uint32_t> bits_of(std::span<const float> values) {
    std::vector<std::uint32_t> bits;
    bits.reserve(values.size());
    for (const float value : values) bits.push_back(std::bit_cast<std::uint32_t>(value));
    return bits;
}

}  // namespace espalier::support
