#include "tests/support/test_device.h"

#include <bit>
#include <limits>

namespace espalier::support {

std::unique_ptr<Device> make_test_device(int threads) {
    return make_cpu_device(threads);
}

Tensor upload(Device& device, std::size_t rows, std::size_t columns, std::span<const float> values) {
    require(values.size() == rows * columns, "as many values as the tensor has");
    Tensor tensor = device.make_tensor(DType::f32, rows, columns);
    device.copy_from_host(values.data(), tensor);
    return tensor;
}

Tensor upload_bytes(Device& device, std::size_t rows, std::size_t columns, std::span<const std::uint8_t> values) {
    require(values.size() == rows * columns, "as many values as the tensor has");
    Tensor tensor = device.make_tensor(DType::u8, rows, columns);
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
