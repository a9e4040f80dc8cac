#include "src/plan/modelled_device.h"

#include "kernels/working_memory.h"
#include "src/plan/operation_costs.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

namespace espalier {

DeviceSeconds& DeviceSeconds::operator+=(const DeviceSeconds& other) {
    products += other.products;
    memory += other.memory;
    host_link += other.host_link;
    return *this;
}

DeviceSeconds& DeviceSeconds::operator-=(const DeviceSeconds& other) {
    products -= other.products;
    memory -= other.memory;
    host_link -= other.host_link;
    return *this;
}

ModelledDevice::ModelledDevice(const DeviceModel& model, VirtualClock& clock)
    : Device(model.tensor_bytes(), OverBudget::counted), model_(model), clock_(clock) {}

const ProductRates& ModelledDevice::rates_of(DType factors) const {
    if (factors != DType::f32) return model_.sixteen_bit;
    return model_.is_gpu && float32_products_ == Float32Products::tf32 ? model_.tf32 : model_.float32;
}

void ModelledDevice::multiply(double flops, double rate) {
    const double seconds = model_.operation_seconds + flops / rate;
    flops_ += flops;
    spent_.products += seconds;
    clock_.advance(seconds);
}

void ModelledDevice::touch(std::size_t bytes) {
    const double seconds = model_.operation_seconds + static_cast<double>(bytes) / model_.memory_bandwidth;
    spent_.memory += seconds;
    clock_.advance(seconds);
}

void ModelledDevice::cross_host_link(std::size_t bytes) {
    const double seconds = model_.operation_seconds + static_cast<double>(bytes) / model_.host_link;
    spent_.host_link += seconds;
    clock_.advance(seconds);
}

void ModelledDevice::wait_for_copies() {
    spent_.host_link += std::max(0.0, copies_end_ - clock_.now());
    clock_.wait_until(copies_end_);
}

std::byte* ModelledDevice::allocate(std::size_t bytes) {
    constexpr std::uintptr_t alignment = 256;
    const std::uintptr_t address = next_address_;
    next_address_ += (bytes + alignment) / alignment * alignment;
    return reinterpret_cast<std::byte*>(address);  // NOLINT(performance-no-int-to-ptr): a name, never followed
}

// Reserved, not used: pages that nobody touches cost nothing.
std::byte* ModelledDevice::allocate_host(std::size_t bytes) {
    void* const memory = mmap(nullptr, std::max<std::size_t>(1, bytes), PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw ResourceError("out of memory: no room for a plan's host memory");
    const std::lock_guard lock(host_mutex_);
    host_allocated_ += bytes;
    host_peak_ = std::max(host_peak_, host_allocated_);
    return static_cast<std::byte*>(memory);
}

void ModelledDevice::release_host(std::byte* memory, std::size_t bytes) noexcept {
    munmap(memory, std::max<std::size_t>(1, bytes));
    const std::lock_guard lock(host_mutex_);
    host_allocated_ -= bytes;
}

std::size_t ModelledDevice::host_peak_bytes() const {
    const std::lock_guard lock(host_mutex_);
    return host_peak_;
}

void ModelledDevice::copy_from_host(const void* /*host*/, TensorView destination) {
    cross_host_link(destination.bytes());
}

void ModelledDevice::copy_to_host(TensorView source, void* host) {
    synchronize();
    if (source.bytes() > 0) std::memset(host, 0, source.bytes());
    cross_host_link(source.bytes());
}

Tensor ModelledDevice::parts_of_a_sum() {
    return model_.is_gpu ? make_tensor(DType::f64, 1, most_parts_of_a_sum, working_memory) : Tensor();
}

Tensor ModelledDevice::copied_from_host(std::size_t numbers) {
    if (!model_.is_gpu) return {};
    Tensor copy = make_tensor(DType::f32, 1, numbers, working_memory);  // of 32 bits, whatever their type
    cross_host_link(copy.view().bytes());
    return copy;
}

bool ModelledDevice::is_on_host(TensorView tensor) const {
    const auto address = reinterpret_cast<std::uintptr_t>(tensor.data);
    return address < first_address || address >= next_address_;
}

void ModelledDevice::move(TensorView source, TensorView destination) {
    if (is_on_host(source) || is_on_host(destination))
        cross_host_link(is_on_host(source) ? source.bytes() : destination.bytes());
    else
        touch(bytes_of_all(source, destination));
}

void ModelledDevice::copy(TensorView source, TensorView destination) {
    move(source, destination);
}

std::uint64_t ModelledDevice::start_copy(TensorView source, TensorView /*destination*/) {
    copies_end_ = std::max(copies_end_, clock_.now()) + static_cast<double>(source.bytes()) / model_.host_link;
    return ++copies_;
}

void ModelledDevice::wait_for_copy(std::uint64_t copy) {
    // Only the end of the last copy is kept: two samples ahead, that is 0.7 ms of a 7B's sample too late.
    if (copy == copies_) wait_for_copies();
}

void ModelledDevice::linear(TensorView x, TensorView weight, TensorView /*added*/, TensorView /*y*/) {
    multiply(product_flops(x.rows, weight.rows, x.columns), rates_of(x.dtype).linear);
}

void ModelledDevice::linear_input_gradient(TensorView dy, TensorView weight, bool /*accumulate*/, TensorView /*dx*/) {
    multiply(product_flops(dy.rows, weight.columns, dy.columns), rates_of(dy.dtype).linear);
}

void ModelledDevice::linear_weight_gradients(TensorView x, std::span<const WeightGradient> gradients) {
    const bool along_sum = model_.is_gpu && x.dtype == DType::f32 && float32_products_ == Float32Products::tf32;
    const auto transposed = [&](TensorView matrix) {
        touch(2 * matrix.bytes());
        return make_tensor(DType::f32, matrix.columns, matrix.rows, "transposed factors");
    };
    const Tensor x_transposed = along_sum ? transposed(x) : Tensor();
    for (const WeightGradient& gradient : gradients) {
        const std::size_t out = gradient.dy.columns;
        // On the CPU a panel lies in a thread's own memory.
        const std::size_t rows =
            model_.is_gpu ? std::min(out, gradient_panel_rows(x.columns, model_.multiprocessors)) : out;
        const Tensor dy_transposed = along_sum ? transposed(gradient.dy) : Tensor();
        const Tensor panel = model_.is_gpu ? make_tensor(DType::f32, rows, x.columns, "gradient panel") : Tensor();
        const std::byte* const place = model_.is_gpu ? panel.view().data : gradient.dy.data;
        for (std::size_t begin = 0; begin < out; begin += rows) {
            const std::size_t count = std::min(rows, out - begin);
            multiply(product_flops(count, x.columns, x.rows), rates_of(x.dtype).weight_gradient);
            gradient.consume(begin, {const_cast<std::byte*>(place), DType::f32, count, x.columns});
        }
        gradient.finished();
    }
}

void ModelledDevice::accumulate_gram(TensorView x, TensorView /*gram*/) {
    const std::size_t n = x.columns;
    const double rate = rates_of(x.dtype).weight_gradient;
    if (!model_.is_gpu) return multiply(product_flops(x.rows, n, n + 1) / 2, rate);
    constexpr std::size_t panel = 2048;
    for (std::size_t begin = 0; begin < n; begin += panel) {
        multiply(product_flops(std::min(panel, n - begin), n - begin, x.rows), rate);
    }
}

void ModelledDevice::rms_norm(TensorView x, TensorView /*weight*/, float /*epsilon*/, TensorView y,
                              TensorView /*inverse_rms*/) {
    touch(bytes_of_all(x, y));
}

void ModelledDevice::rms_norm_backward(TensorView x, TensorView /*weight*/, TensorView /*inverse_rms*/, TensorView dy,
                                       bool accumulate, TensorView dx) {
    touch(bytes_of_all(x, dy, dx) + (accumulate ? dx.bytes() : 0));
}

void ModelledDevice::apply_rope(TensorView x, std::size_t /*head_size*/, TensorView /*cosine*/, TensorView /*sine*/,
                                bool /*inverse*/) {
    touch(2 * x.bytes());
}

void ModelledDevice::attention(TensorView q, TensorView /*k*/, TensorView /*v*/, const AttentionShape& /*shape*/,
                               TensorView /*out*/, TensorView /*log_sum_exp*/) {
    multiply(2.0 * lower_triangle_flops(q), rates_of(q.dtype).attention);
}

void ModelledDevice::attention_backward(TensorView q, TensorView /*k*/, TensorView /*v*/, TensorView /*out*/,
                                        TensorView /*log_sum_exp*/, TensorView /*dout*/, const AttentionShape& shape,
                                        TensorView /*dq*/, TensorView /*dk*/, TensorView /*dv*/) {
    // What the GPU's and the CPU's kernels hold meanwhile.
    const Tensor first = make_tensor(DType::f32, q.rows, model_.is_gpu ? shape.query_heads : q.columns, working_memory);
    const Tensor second = model_.is_gpu ? Tensor() : make_tensor(DType::f32, q.rows, q.columns, working_memory);
    multiply(5.0 * lower_triangle_flops(q), rates_of(q.dtype).attention_backward);
}

void ModelledDevice::silu_multiply(TensorView gate, TensorView up, TensorView out) {
    touch(bytes_of_all(gate, up, out));
}

void ModelledDevice::silu_multiply_backward(TensorView dout, TensorView gate, TensorView up) {
    touch(dout.bytes() + 2 * bytes_of_all(gate, up));
}

void ModelledDevice::add(TensorView x, TensorView y) {
    touch(x.bytes() + 2 * y.bytes());
}

void ModelledDevice::subtract(TensorView a, TensorView b, TensorView difference) {
    touch(bytes_of_all(a, b, difference));
}

void ModelledDevice::sum(TensorView a, TensorView difference, TensorView result) {
    touch(bytes_of_all(a, difference, result));
}

void ModelledDevice::add_bias(TensorView /*bias*/, TensorView y) {
    touch(2 * y.bytes());
}

}  // namespace espalier
