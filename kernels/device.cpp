#include "kernels/device.h"

#include "src/base/error.h"
#include "src/base/units.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace espalier {

std::size_t reserved_gpu_bytes(std::size_t available) {
    constexpr std::size_t usual = std::size_t{1} << 30;
    return std::min(available / 8, std::max(usual, available / 32));
}

namespace {

std::string text_of_bytes(std::size_t bytes) {
    return format_bytes(static_cast<double>(bytes));
}

[[noreturn]] void refuse(const MemoryLedger& memory, std::size_t bytes, const char* name) {
    const bool limited = memory.budget() != std::numeric_limits<std::size_t>::max();
    std::string text = std::string("out of ") + (limited ? "GPU " : "") + "memory: no room for " +
                       text_of_bytes(bytes) + " of " + name + " beside the " + text_of_bytes(memory.allocated()) +
                       " in use";
    if (limited) text += " of " + text_of_bytes(memory.budget());
    if (memory.allocated() > 0) text += " (" + describe(memory.items()) + ")";
    text += "; use fewer samples, a shorter sequence, ";
    throw ResourceError(text + (limited ? "more ranks, or a larger --gpu-memory" : "or more ranks"));
}

}  // namespace

Tensor::Tensor(Tensor&& other) noexcept
    : device_(std::exchange(other.device_, nullptr)),
      view_(std::exchange(other.view_, TensorView{})),
      name_(std::exchange(other.name_, nullptr)) {}

Tensor& Tensor::operator=(Tensor&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(view_, other.view_);
    std::swap(name_, other.name_);
    return *this;
}

Tensor::~Tensor() {
    if (device_ == nullptr) return;
    device_->release(view_.data);
    device_->memory_.remove(name_, view_.bytes());
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

Tensor Device::make_tensor(DType dtype, std::size_t rows, std::size_t columns, const char* name) {
    TensorView view{nullptr, dtype, rows, columns};
    const std::size_t bytes = view.bytes();
    if (memory_.has_room_for(bytes)) view.data = allocate(bytes);
    if (view.data == nullptr) refuse(memory_, bytes, name);
    memory_.add(name, bytes);
    return {*this, view, name};
}

}  // namespace espalier
