// Every operation of a device beside the device's own ceilings, which are measured first: bytes against a large copy,
// multiplications against a large matrix product of the same type. Shapes are those of a LLaMA-2-7B block; element-wise
// operations get sixteen samples at once, so that a cache does not hold them.
//   kernel_benchmark [cpu|cuda]
#include "kernels/device.h"
#include "kernels/device_numbers.h"
#include "src/base/clock.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

namespace {

using namespace espalier;

constexpr std::size_t hidden = 4096, intermediate = 11008, tokens = 2048, heads = 32, head_size = 128;

/// Seconds of one call when called back to back for about 10 ms; median of five such means.
double seconds_of_call(Device& device, const std::function<void()>& operation) {
    std::size_t calls = 1;
    const auto call_them = [&] {
        for (std::size_t i = 0; i < calls; ++i) operation();
        device.synchronize();
    };
    call_them();  // modules are loaded, algorithms chosen
    calls = static_cast<std::size_t>(std::max(1.0, 0.01 / seconds_of(call_them, 0)));
    std::array<double, 5> times{};
    for (double& time : times) time = seconds_of(call_them, 0) / static_cast<double>(calls);
    std::sort(times.begin(), times.end());
    return times[2];
}

class Benchmark {
  public:
    explicit Benchmark(Device& device) : device_(device), on_gpu_(device.stream() != nullptr) {
        std::mt19937 engine(1);
        std::normal_distribution<float> normal(0.0F, 1.0F);
        random_.resize(std::size_t{1} << 22);
        for (float& value : random_) value = normal(engine);
    }

    void run() {
        std::printf("%s\n%-44s %9s %9s %11s %7s\n", device_.description().c_str(), "operation", "GB", "GFLOP",
                    "time us", "ceiling");
        measure_ceilings();
        products();
        elementwise();
        statistics();
        pruning();
    }

  private:
    DType half() const { return on_gpu_ ? DType::bf16 : DType::f32; }
    std::size_t samples() const { return on_gpu_ ? 16 : 1; }

    Tensor random(DType dtype, std::size_t rows, std::size_t columns, float scale = 1.0F) {
        Tensor tensor = device_.make_tensor(dtype, rows, columns, "test");
        const std::size_t count = rows * columns, element = bytes_of(dtype);
        std::vector<std::byte> host(count * element);
        std::vector<float> scaled(random_);
        for (float& value : scaled) value *= scale;
        for (std::size_t begin = 0; begin < count; begin += scaled.size()) {
            round_from_float(dtype, scaled.data(), std::min(scaled.size(), count - begin),
                             host.data() + begin * element);
        }
        device_.copy_from_host(host.data(), tensor);
        return tensor;
    }
    void print(const std::string& name, double bytes, double flops, double seconds, double share) {
        std::printf("%-44s %9.3f %9.1f %11.1f %6.0f %%\n", name.c_str(), bytes / 1e9, flops / 1e9, seconds * 1e6,
                    100 * share);
    }
    /// An operation bound by memory.
    void moving(const std::string& name, double bytes, const std::function<void()>& operation) {
        const double seconds = seconds_of_call(device_, operation);
        print(name, bytes, 0, seconds, bytes / seconds / bandwidth_);
    }
    void computing(const std::string& name, double flops, double ceiling, const std::function<void()>& operation) {
        const double seconds = seconds_of_call(device_, operation);
        print(name, 0, flops, seconds, flops / seconds / ceiling);
    }

    void measure_ceilings() {
        const std::size_t elements = on_gpu_ ? std::size_t{1} << 29 : std::size_t{1} << 26;
        {
            const Tensor from = device_.make_tensor(DType::f32, 1, elements, "test"),
                         to = device_.make_tensor(DType::f32, 1, elements, "test");
            device_.fill_zero(from);
            const double bytes = 8.0 * static_cast<double>(elements);
            const double seconds = seconds_of_call(device_, [&] { device_.copy(from, to); });
            bandwidth_ = bytes / seconds;
            print(fmt::format("copy: {:.2f} TB/s", bandwidth_ / 1e12), bytes, 0, seconds, 1);
        }
        const std::size_t n = on_gpu_ ? 8192 : 2048;
        for (const DType dtype : {half(), DType::f32}) {
            const Tensor a = random(dtype, n, n), b = random(dtype, n, n), c = device_.make_tensor(dtype, n, n, "test");
            for (const Float32Products products : {Float32Products::exact, Float32Products::tf32}) {
                if ((dtype != DType::f32 || !on_gpu_) && products == Float32Products::tf32) continue;
                device_.set_float32_products(products);
                const double flops = 2.0 * static_cast<double>(n * n * n);
                const double seconds = seconds_of_call(device_, [&] { device_.linear(a, b, {}, c); });
                const double rate = flops / seconds;
                (dtype == half() ? rate_half_ : products == Float32Products::tf32 ? rate_tf32_ : rate_exact_) = rate;
                print(fmt::format("product of {} squares, {}{}: {:.0f} TFLOP/s", n, name_of(dtype),
                                  products == Float32Products::tf32 ? " as TF32" : "", rate / 1e12),
                      0, flops, seconds, 1);
            }
        }
        if (!on_gpu_) rate_exact_ = rate_tf32_ = rate_half_;
    }

    void products() {
        for (const DType dtype : {half(), DType::f32}) {
            if (dtype == DType::f32 && !on_gpu_) continue;
            device_.set_float32_products(dtype == DType::f32 ? Float32Products::tf32 : Float32Products::exact);
            const double ceiling = dtype == DType::f32 ? rate_tf32_ : rate_half_;
            const std::string of = dtype == DType::f32 ? ", TF32" : ", " + std::string(name_of(dtype));
            for (const auto& [out, in] : {std::pair{hidden, hidden}, {intermediate, hidden}, {hidden, intermediate}}) {
                const Tensor x = random(dtype, tokens, in), weight = random(dtype, out, in, 0.02F);
                const Tensor dy = random(dtype, tokens, out), y = device_.make_tensor(dtype, tokens, out, "test");
                const Tensor dx = device_.make_tensor(dtype, tokens, in, "test");
                const Tensor wide = device_.make_tensor(DType::f32, tokens, out, "test");
                const std::string shape = fmt::format(" {} x {}{}", out, in, of);
                const double flops = 2.0 * static_cast<double>(tokens * in * out);
                computing("linear" + shape, flops, ceiling, [&] { device_.linear(x, weight, {}, y); });
                if (out == hidden) {
                    computing("linear onto the residual" + shape, flops, ceiling,
                              [&] { device_.linear(x, weight, wide, wide); });
                }
                computing("linear_input_gradient" + shape, flops, ceiling,
                          [&] { device_.linear_input_gradient(dy, weight, false, dx); });
                computing("linear_weight_gradient" + shape, flops, ceiling,
                          [&] { device_.linear_weight_gradient(dy, x, [](std::size_t, TensorView) {}); });
                const Tensor sum = random(DType::f32, out, in), master = random(DType::f32, out, in);
                if (dtype == half()) {
                    computing("... with square_accumulate" + shape, flops, ceiling, [&] {
                        device_.linear_weight_gradient(dy, x, [&](std::size_t begin, TensorView panel) {
                            device_.square_accumulate(panel, sum.view().row_range(begin, begin + panel.rows));
                        });
                    });
                }
                computing("... with rmsprop_step" + shape, flops, ceiling, [&] {
                    device_.linear_weight_gradient(dy, x, [&](std::size_t begin, TensorView panel) {
                        const std::size_t end = begin + panel.rows;
                        const TensorView rounded =
                            dtype == DType::f32 ? TensorView{} : weight.view().row_range(begin, end);
                        device_.optimizer_step({Rmsprop{}, 1e-9F}, {panel,
                                                                    {},
                                                                    {sum.view().row_range(begin, end)},
                                                                    master.view().row_range(begin, end),
                                                                    rounded});
                    });
                });
            }
            attention(dtype, of, ceiling);
        }
        device_.set_float32_products(Float32Products::exact);
    }

    void attention(DType dtype, const std::string& of, double ceiling) {
        const auto make = [&] { return random(dtype, tokens, heads * head_size); };
        const Tensor q = make(), k = make(), v = make(), out = make(), dout = make(), dq = make(), dk = make(),
                     dv = make();
        const Tensor log_sum_exp = device_.make_tensor(DType::f32, heads, tokens, "test");
        const AttentionShape shape{heads, heads, head_size};
        // Half of the T x T products: the other half lies above the diagonal.
        const double forward = 2.0 * static_cast<double>(tokens * tokens * heads * head_size);
        computing("attention, T 2048, head size 128" + of, forward, ceiling,
                  [&] { device_.attention(q, k, v, shape, out, log_sum_exp); });
        computing("attention_backward" + of, 2.5 * forward, ceiling,
                  [&] { device_.attention_backward(q, k, v, out, log_sum_exp, dout, shape, dq, dk, dv); });
    }

    void elementwise() {
        const std::size_t rows = tokens * samples(), wide_rows = tokens * std::max<std::size_t>(1, samples() / 4);
        const auto n = static_cast<double>(rows * hidden), wide_n = static_cast<double>(wide_rows * intermediate);
        const auto b = static_cast<double>(bytes_of(half()));
        {
            const Tensor x = random(DType::f32, rows, hidden), y = device_.make_tensor(half(), rows, hidden, "test");
            const Tensor weight = random(DType::f32, 1, hidden),
                         inverse = device_.make_tensor(DType::f32, 1, rows, "test");
            const Tensor dy = random(DType::f32, rows, hidden), dx = random(DType::f32, rows, hidden);
            moving("rms_norm", n * (4 + b), [&] { device_.rms_norm(x, weight, 1e-5F, y, inverse); });
            moving("rms_norm_backward, accumulated", n * 16,
                   [&] { device_.rms_norm_backward(x, weight, inverse, dy, true, dx); });
            moving("convert float32", n * (4 + b), [&] { device_.convert(x, y); });
            moving("add", n * 12, [&] { device_.add(x, dx); });
            const Tensor cosine = random(DType::f32, rows, head_size / 2),
                         sine = random(DType::f32, rows, head_size / 2);
            moving("apply_rope", n * 2 * b + n / head_size * 4 * static_cast<double>(head_size) / heads,
                   [&] { device_.apply_rope(y, head_size, cosine, sine, false); });
        }
        const Tensor gate = random(half(), wide_rows, intermediate), up = random(half(), wide_rows, intermediate);
        const Tensor out = random(half(), wide_rows, intermediate);
        moving("silu_multiply", wide_n * 3 * b, [&] { device_.silu_multiply(gate, up, out); });
        moving("silu_multiply_backward", wide_n * 5 * b, [&] { device_.silu_multiply_backward(out, gate, up); });
        moving("count_nonfinite", wide_n * b, [&] { device_.count_nonfinite(gate, counters_.at(0)); });
    }

    void statistics() {
        const std::size_t rows = tokens * samples();
        const auto n = static_cast<double>(rows * hidden), b = static_cast<double>(bytes_of(half()));
        const Tensor x = random(half(), rows, hidden), y = random(DType::f32, rows, hidden);
        const Tensor target = random(DType::f32, rows, hidden),
                     sums = device_.make_tensor(DType::f32, 1, hidden, "test");
        moving("column_square_sums", n * b, [&] { device_.column_square_sums(x, sums); });
        const Tensor roots = device_.make_tensor(DType::f32, 1, hidden, "test");
        moving("column_sum_roots", n * 4, [&] { device_.column_sum_roots(y, 1.0, roots); });
        moving("square_accumulate", n * 12, [&] { device_.square_accumulate(y, target); });
        moving("square_sum", n * 4, [&] { device_.square_sum(y, sums_.at(0)); });
        moving("squared_error", n * 8, [&] { device_.squared_error(y, target, sums_.at(1)); });
        moving("squared_error_gradient", n * 12, [&] { device_.squared_error_gradient(target, y); });
        moving("frobenius_direction", n * 8, [&] { device_.frobenius_direction(y, sums_.at(0), 1.0F, target); });
        {
            const std::size_t panel = 4096, predictions = tokens;
            const Tensor logits = random(DType::f32, predictions, panel);
            const auto make = [&] { return device_.make_tensor(DType::f32, 1, predictions, "test"); };
            const Tensor running_max = make(), running_sum = make(), target_logit = make();
            const std::vector<std::int32_t> targets(predictions, 1);
            device_.start_cross_entropy(running_max, running_sum, target_logit);
            moving("cross_entropy_panel (in cache)", static_cast<double>(predictions * panel) * 4,
                   [&] { device_.cross_entropy_panel(logits, 0, targets, running_max, running_sum, target_logit); });
        }
    }

    void pruning() {
        const std::size_t rows = intermediate * std::max<std::size_t>(1, samples() / 4);
        const auto n = static_cast<double>(rows * hidden), b = static_cast<double>(bytes_of(half()));
        const Tensor weight = random(half(), rows, hidden), gradient = random(DType::f32, rows, hidden);
        const Tensor norms = random(DType::f32, 1, hidden), mask = device_.make_tensor(DType::u8, rows, hidden, "test");
        device_.square_accumulate(norms, norms);
        const ScoreTerms wanda{{}, norms, 0}, wanda_pp{gradient, norms, 100};
        for (const char* const name : {"2:4", "4:8", "unstructured"}) {
            const PruningPattern pattern = PruningPattern::parse(name, 0.5);
            moving(fmt::format("score_and_mask {}, wanda", name), n * (2 * b + 1),
                   [&] { device_.score_and_mask(wanda, pattern, weight, mask, counters_.at(0)); });
            moving(fmt::format("score_and_mask {}, wanda++", name), n * (2 * b + 5),
                   [&] { device_.score_and_mask(wanda_pp, pattern, weight, mask, counters_.at(0)); });
        }
        const Tensor master = random(DType::f32, rows, hidden), average = random(DType::f32, rows, hidden);
        device_.square_accumulate(average, average);
        moving("rmsprop_step, rounded", n * (20 + b), [&] {
            device_.optimizer_step({Rmsprop{}, 1e-9F},
                                   {gradient, {}, {average.view()}, master, on_gpu_ ? weight.view() : TensorView{}});
        });
        moving("count_unchanged", n * (2 * b + 1),
               [&] { device_.count_unchanged(weight, weight, mask, counters_.at(1), counters_.at(2)); });
        moving("compare_masks", n * 2, [&] { device_.compare_masks(mask, mask, counters_.at(1), counters_.at(2)); });
    }

    Device& device_;
    bool on_gpu_;
    std::vector<float> random_;
    DeviceSums sums_{device_, 2};
    DeviceCounters counters_{device_, 3};
    double bandwidth_ = 0, rate_half_ = 0, rate_tf32_ = 0, rate_exact_ = 0;
};

}  // namespace

int main(int count, char** arguments) {
    try {
        const bool on_cpu = count > 1 && std::strcmp(arguments[1], "cpu") == 0;
        const auto device = on_cpu ? make_cpu_device(0) : make_cuda_device({});
        Benchmark(*device).run();
        return 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "kernel_benchmark: %s\n", error.what());
        return 2;
    }
}
