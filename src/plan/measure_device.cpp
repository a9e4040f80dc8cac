#include "src/plan/measure_device.h"

#include "kernels/device_numbers.h"
#include "src/base/clock.h"
#include "src/base/error.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>

namespace espalier {

namespace {

class Measurement {
  public:
    Measurement(Device& device, const MeasuredShapes& shapes) : device_(device), s_(shapes) {}

    ProductRates products(DType type) const {
        const Tensor x = numbers(type, s_.tokens, s_.hidden), inner = numbers(type, s_.tokens, s_.intermediate),
                     w = numbers(type, s_.intermediate, s_.hidden);
        const double product = 2.0 * static_cast<double>(s_.tokens * s_.hidden) * static_cast<double>(s_.intermediate);
        const double forward = seconds_of_call([&] { device_.linear(x, w, {}, inner); });
        const double backward = seconds_of_call([&] { device_.linear_input_gradient(inner, w, false, x); });
        const double gradient =
            seconds_of_call([&] { device_.linear_weight_gradient(inner, x, [](std::size_t, TensorView) {}); });

        const AttentionShape heads{s_.query_heads, s_.key_value_heads, s_.head_size};
        const std::size_t query = s_.query_heads * s_.head_size, key_value = s_.key_value_heads * s_.head_size;
        const Tensor q = numbers(type, s_.tokens, query), k = numbers(type, s_.tokens, key_value),
                     v = numbers(type, s_.tokens, key_value), out = numbers(type, s_.tokens, query),
                     log_sum = numbers(DType::f32, s_.query_heads, s_.tokens), dq = numbers(type, s_.tokens, query),
                     dk = numbers(type, s_.tokens, key_value), dv = numbers(type, s_.tokens, key_value);
        const double half = static_cast<double>(s_.tokens * query) * static_cast<double>(s_.tokens + 1);
        const double attention = seconds_of_call([&] { device_.attention(q, k, v, heads, out, log_sum); });
        const double attention_backward =
            seconds_of_call([&] { device_.attention_backward(q, k, v, out, log_sum, out, heads, dq, dk, dv); });
        return {2 * product / (forward + backward), product / gradient, 2 * half / attention,
                5 * half / attention_backward};
    }

    /// Bytes a second of an operation that reads twice what it writes, on more than a cache holds.
    double memory_bandwidth() const {
        constexpr std::size_t elements = std::size_t{1} << 25;
        const Tensor a = numbers(DType::f32, 1, elements), b = numbers(DType::f32, 1, elements);
        return 12.0 * elements / seconds_of_call([&] { device_.add(a, b); });
    }
    double host_link() const {
        constexpr std::size_t bytes = std::size_t{1} << 28;
        const Tensor tensor = numbers(DType::u8, 1, bytes);
        const HostBuffer host(device_, bytes);
        return static_cast<double>(bytes) /
               seconds_of_call([&] { device_.copy(host.view(DType::u8, 0, 1, bytes), tensor); });
    }
    /// Weights a second, 2:4 with all terms of a score.
    double masking_rate() const {
        const Tensor weight = numbers(DType::f32, s_.intermediate, s_.hidden),
                     gradient = numbers(DType::f32, s_.intermediate, s_.hidden),
                     norms = numbers(DType::f32, 1, s_.hidden),
                     mask = device_.make_tensor(DType::u8, s_.intermediate, s_.hidden, "measured");
        device_.square_accumulate(norms, norms);
        device_.square_accumulate(gradient, gradient);
        const DeviceCounters unusable(device_, 1);
        const PruningPattern pattern = {2, 4, 0.5};
        return static_cast<double>(weight.view().size()) / seconds_of_call([&] {
                   device_.score_and_mask({gradient, norms, 100}, pattern, weight, mask, unusable.at(0));
               });
    }
    double operation_seconds() const {
        const Tensor a = numbers(DType::f32, 1, 256), b = numbers(DType::f32, 1, 256);
        return seconds_of_call([&] { device_.add(a, b); });
    }

  private:
    /// Numbers between -1 and 1, as they come in a model: a GPU multiplies zeros a fifth faster, on less power.
    Tensor numbers(DType type, std::size_t rows, std::size_t columns) const {
        Tensor tensor = device_.make_tensor(type, rows, columns, "measured");
        if (type == DType::u8) return tensor;
        std::vector<float> values(rows * columns);
        std::uint32_t state = 1;
        for (float& value : values) {
            state = state * 1664525U + 1013904223U;  // Numerical Recipes' generator
            value = static_cast<float>(static_cast<std::int32_t>(state)) * 0x1p-31F;
        }
        std::vector<std::byte> rounded(values.size() * bytes_of(type));
        round_from_float(type, values.data(), values.size(), rounded.data());
        device_.copy_from_host(rounded.data(), tensor);
        return tensor;
    }
    /// Of one call among many; the median of three means over about 50 ms.
    double seconds_of_call(const std::function<void()>& operation) const {
        std::size_t calls = 1;
        const auto call_them = [&] {
            for (std::size_t i = 0; i < calls; ++i) operation();
            device_.synchronize();
        };
        call_them();  // modules are loaded, algorithms chosen
        calls = static_cast<std::size_t>(std::clamp(0.05 / seconds_of(call_them, 0), 1.0, 10000.0));
        std::array<double, 3> times{};
        for (double& time : times) time = seconds_of(call_them, 0) / static_cast<double>(calls);
        std::sort(times.begin(), times.end());
        return times[1];
    }

    Device& device_;
    const MeasuredShapes& s_;
};

/// Bytes a second that one process writes through to the disk.
double file_bandwidth(const std::filesystem::path& folder) {
    const std::filesystem::path file = folder / (".espalier-rate-" + std::to_string(::getpid()));
    const int descriptor = ::open(file.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    if (descriptor < 0) throw InputError(folder.string() + ": no file can be written here to measure how fast");
    const std::vector<char> block(std::size_t{8} << 20, 'e');
    constexpr int blocks = 16;
    bool whole = true;
    const Stopwatch stopwatch;
    for (int i = 0; i < blocks && whole; ++i) {
        whole = ::write(descriptor, block.data(), block.size()) == static_cast<ssize_t>(block.size());
    }
    whole = ::fsync(descriptor) == 0 && whole;
    const double seconds = stopwatch.seconds();
    ::close(descriptor);
    ::unlink(file.c_str());
    if (!whole) throw ResourceError(folder.string() + ": 128 MiB could not be written here to measure how fast");
    return static_cast<double>(blocks) * static_cast<double>(block.size()) / seconds;
}

std::size_t memory_of_machine() {
    return static_cast<std::size_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<std::size_t>(::sysconf(_SC_PAGE_SIZE));
}

}  // namespace

MeasuredShapes MeasuredShapes::of_model(const ModelConfig& config, std::size_t tokens) {
    return {tokens,          config.hidden_size, config.intermediate_size, config.query_heads, config.key_value_heads,
            config.head_size};
}

MeasuredShapes MeasuredShapes::usual(bool on_gpu) {
    return on_gpu ? MeasuredShapes{2048, 4096, 11008, 32, 32, 128} : MeasuredShapes{512, 1024, 2816, 16, 16, 64};
}

DeviceModel measure_device(Device& device, const DeviceModel& like, const MeasuredShapes& shapes,
                           const std::filesystem::path& folder) {
    const Measurement measurement(device, shapes);
    DeviceModel model = like;
    model.name = device.description();
    model.origin = "measured here";
    if (like.is_gpu) model.multiprocessors = device.multiprocessors();
    model.float32 = measurement.products(DType::f32);
    model.sixteen_bit = model.tf32 = model.float32;
    if (device.compute_dtype(DType::bf16) == DType::bf16) {
        model.sixteen_bit = measurement.products(DType::bf16);
        device.set_float32_products(Float32Products::tf32);
        model.tf32 = measurement.products(DType::f32);
        device.set_float32_products(Float32Products::exact);
    }
    model.memory_bandwidth = measurement.memory_bandwidth();
    model.masking_rate = measurement.masking_rate();
    model.host_link = measurement.host_link();
    model.operation_seconds = measurement.operation_seconds();
    // A plan by these rates has for tensors what this run would have.
    model.reserved_bytes = like.is_gpu ? reserved_gpu_bytes(device.memory().budget()) : 0;
    model.memory_bytes = like.is_gpu ? device.memory().budget() + model.reserved_bytes : memory_of_machine();
    if (!folder.empty()) model.file_bandwidth = file_bandwidth(folder);
    return model;
}

}  // namespace espalier
