#include "kernels/device.h"

#include <algorithm>
#include <utility>

namespace espalier {

std::size_t reserved_gpu_bytes(std::size_t available) {
    constexpr std::size_t usual = std::size_t{1} << 30;
    return std::min(available / 8, std::max(usual, available / 32));
}

Tensor::Tensor(Tensor&& other) noexcept
    : device_(std::exchange(other.device_, nullptr)), view_(std::exchange(other.view_, TensorView{})) {}

Tensor& Tensor::operator=(Tensor&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(view_, other.view_);
    return *this;
}

Tensor::~Tensor() {
    if (device_ != nullptr) device_->release(view_.data, view_.bytes());
}

HostBuffer::HostBuffer(Device& device, std::size_t bytes)
    : device_(&device), data_(device.allocate_host(bytes)), size_(bytes) {}

HostBuffer::HostBuffer(HostBuffer&& other) noexcept
    : device_(std::exchange(other.device_, nullptr)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

HostBuffer& HostBuffer::operator=(HostBuffer&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
}

HostBuffer::~HostBuffer() {
    if (device_ != nullptr) device_->release_host(data_, size_);
}

TensorView HostBuffer::view(DType dtype, std::size_t offset, std::size_t rows, std::size_t columns) const {
    const TensorView view{data_ + offset, dtype, rows, columns};
    require(offset + view.bytes() <= size_, "a part of the host buffer");
    return view;
}

Tensor Device::make_tensor(DType dtype, std::size_t rows, std::size_t columns) {
    TensorView view{nullptr, dtype, rows, columns};
    view.data = allocate(view.bytes());
    return {*this, view};
}

}  // namespace espalier
