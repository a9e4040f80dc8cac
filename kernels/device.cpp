#include "kernels/device.h"

#include <utility>

namespace espalier {

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

Tensor Device::make_tensor(DType dtype, std::size_t rows, std::size_t columns) {
    TensorView view{nullptr, dtype, rows, columns};
    view.data = allocate(view.bytes());
    return {*this, view};
}

}  // namespace espalier
