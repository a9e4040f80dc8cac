// Memory of a device, and that no result depends on the number of threads.
#include "kernels/device.h"

#include "kernels/device_numbers.h"
#include "tests/support/expect.h"
#include "tests/support/matrix.h"
#include "tests/support/test_device.h"

#include <gtest/gtest.h>

#include <map>

namespace espalier {
namespace {

using namespace support;

TEST(Tensor, OwnsItsMemory) {
    const auto device = make_test_device();
    EXPECT_EQ(device->memory().allocated(), 0U);
    {
        Tensor a = device->make_tensor(DType::bf16, 3, 5, "test");
        EXPECT_EQ(device->memory().allocated(), 30U);
        EXPECT_EQ(a.view().rows, 3U);
        EXPECT_EQ(a.view().columns, 5U);
        EXPECT_EQ(a.view().dtype, DType::bf16);
        Tensor b = std::move(a);
        EXPECT_TRUE(a.empty());  // NOLINT(bugprone-use-after-move): what is left after a move is specified
        EXPECT_FALSE(b.empty());
        EXPECT_EQ(device->memory().allocated(), 30U);
        b = device->make_tensor(DType::f32, 1, 1, "test");
    }
    EXPECT_EQ(device->memory().allocated(), 0U);
    EXPECT_GE(device->memory().peak(), 34U);
    device->reset_memory_peak();
    EXPECT_EQ(device->memory().peak(), 0U);
    EXPECT_TRUE(Tensor().empty());
}

TEST(Tensor, EmptyShapesAreTensors) {
    const auto device = make_test_device();
    const Tensor nothing = device->make_tensor(DType::f32, 0, 7, "test");
    EXPECT_FALSE(nothing.empty());
    EXPECT_EQ(nothing.view().size(), 0U);
    device->fill_zero(nothing);
    EXPECT_EQ(square_sum_of(*device, nothing), 0);
    EXPECT_EQ(nonfinite_in(*device, nothing), 0U);
}

TEST(Device, RefusesWhatDoesNotFit) {
    const auto device = make_test_device();
    expect_error(ExitStatus::resources, {"out of ", "memory", "TiB"}, [&] {
        static_cast<void>(device->make_tensor(DType::f32, std::size_t{1} << 30, std::size_t{1} << 20, "test"));
    });
    EXPECT_EQ(device->memory().allocated(), 0U);
    const Tensor taken = device->make_tensor(DType::f32, 1, 1000, "hidden states");
    expect_error(
        ExitStatus::resources, {"4096.0 TiB of weights beside the 3.9 KiB in use", "(hidden states 3.9 KiB)"}, [&] {
            static_cast<void>(device->make_tensor(DType::f32, std::size_t{1} << 30, std::size_t{1} << 20, "weights"));
        });
}

TEST(Device, CopiesAndFills) {
    const auto device = make_test_device();
    Random random(1);
    for (const std::size_t size : {1U, 65U, 70001U}) {
        const std::vector<float> values = random.normals(size);
        const Tensor source = upload(*device, 1, size, values), destination = make_poisoned(*device, 1, size);
        device->copy(source, destination);
        EXPECT_EQ(download(*device, destination), values);
        device->fill_zero(destination);
        EXPECT_EQ(bits_of(download(*device, destination)), std::vector<std::uint32_t>(size, 0));
    }
}

TEST(Device, DescribesItself) {
    const auto device = make_test_device(2);
    if (test_device_is_gpu()) {
        EXPECT_EQ(device->description().find("GPU 0, "), 0U) << device->description();
        return;
    }
    EXPECT_NE(device->description().find("CPU, 2 thread"), std::string::npos) << device->description();
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) EXPECT_EQ(device->compute_dtype(dtype), DType::f32);
}

TEST(Device, CudaAvailabilityExplainsItself) {
    const CudaAvailability availability = cuda_availability();
    EXPECT_FALSE(availability.explanation.empty());
    EXPECT_EQ(availability.explanation.find('\n'), std::string::npos);
    if (!built_with_cuda()) {
        EXPECT_EQ(availability.gpus, 0);
    }
}

/// Every operation once, at sizes of several chunks and panels: the bits of all outputs by the operation's name.
std::map<std::string, std::vector<std::uint32_t>> run_everything(int threads) {
    const auto device = make_test_device(threads);
    std::map<std::string, std::vector<std::uint32_t>> bits;
    const auto keep = [&](const std::string& name, TensorView tensor) {
        const std::vector<std::uint32_t> more = bits_of(download(*device, tensor));
        bits[name].insert(bits[name].end(), more.begin(), more.end());
    };
    const auto keep_number = [&](const std::string& name, double value) {
        const std::vector<float> parts = {static_cast<float>(value),
                                          static_cast<float>(value - static_cast<float>(value))};
        const std::vector<std::uint32_t> more = bits_of(parts);
        bits[name].insert(bits[name].end(), more.begin(), more.end());
    };
    Random random(99);
    const auto make = [&](std::size_t rows, std::size_t columns) {
        return upload(*device, rows, columns, random.normals(rows * columns));
    };
    const std::size_t tokens = 130, in = 200, out = 520;
    const Tensor x = make(tokens, in), w = make(out, in), y = make(tokens, out), dx = make(tokens, in);
    device->linear(x, w, y, y);
    keep("linear", y);
    device->linear_input_gradient(y, w, false, dx);
    keep("linear_input_gradient", dx);
    const Tensor gradient = make_poisoned(*device, out, in), gram = make(in, in);
    device->linear_weight_gradient(y, x, [&](std::size_t row, TensorView panel) {
        device->copy(panel, gradient.view().row_range(row, row + panel.rows));
    });
    keep("linear_weight_gradient", gradient);
    device->accumulate_gram(x, gram);
    keep("accumulate_gram", gram);

    const Tensor norm = make(1, in), normed = make_poisoned(*device, tokens, in),
                 inverse = make_poisoned(*device, 1, tokens);
    device->rms_norm(x, norm, 1e-5F, normed, inverse);
    keep("rms_norm", normed);
    device->rms_norm_backward(x, norm, inverse, dx, true, normed);
    keep("rms_norm_backward", normed);
    const AttentionShape shape{6, 2, 16};
    const Tensor q = make(tokens, 96), k = make(tokens, 32), v = make(tokens, 32), dout = make(tokens, 96);
    const Tensor cosine = make(tokens, 8), sine = make(tokens, 8);
    device->apply_rope(q, 16, cosine, sine, false);
    keep("apply_rope", q);
    const Tensor attended = make_poisoned(*device, tokens, 96), lse = make_poisoned(*device, 6, tokens);
    device->attention(q, k, v, shape, attended, lse);
    keep("attention", attended);
    keep("attention", lse);
    const Tensor dq = make_poisoned(*device, tokens, 96), dk = make_poisoned(*device, tokens, 32),
                 dv = make_poisoned(*device, tokens, 32);
    device->attention_backward(q, k, v, attended, lse, dout, shape, dq, dk, dv);
    for (const Tensor* const tensor : {&dq, &dk, &dv}) keep("attention_backward", *tensor);

    const Tensor gate = make(tokens, out), up = make(tokens, out), activation = make_poisoned(*device, tokens, out);
    device->silu_multiply(gate, up, activation);
    keep("silu_multiply", activation);
    device->silu_multiply_backward(y, gate, up);
    keep("silu_multiply_backward", gate);
    keep("silu_multiply_backward", up);
    device->add(y, up);
    keep("add", up);
    device->add_bias(make(1, out), up);
    keep("add_bias", up);

    const Tensor sums = make_poisoned(*device, 1, out), direction = make_poisoned(*device, tokens, out);
    device->column_square_sums(y, sums);
    keep("column_square_sums", sums);
    device->column_sum_roots(activation, 0.5, sums);
    keep("column_sum_roots", sums);
    device->square_accumulate(gradient, w);
    keep("square_accumulate", w);
    device->scaled_square_root(0.3F, sums);
    keep("scaled_square_root", sums);
    frobenius_direction_of(*device, y, direction);
    keep("frobenius_direction", direction);
    keep_number("square_sum", square_sum_of(*device, y));
    keep_number("squared_error", squared_error_of(*device, y, up));
    device->squared_error_gradient(up, y);
    keep("squared_error_gradient", y);
    keep_number("count_nonfinite", static_cast<double>(nonfinite_in(*device, y)));
    const Tensor largest = make(1, tokens), sum = make(1, tokens), target = make(1, tokens);
    const std::vector<std::int32_t> targets(tokens, 7);
    device->start_cross_entropy(largest, sum, target);
    device->cross_entropy_panel(direction, 0, targets, largest, sum, target);
    for (const Tensor* const tensor : {&largest, &sum, &target}) keep("cross_entropy_panel", *tensor);

    for (const PruningPattern pattern : {PruningPattern{2, 4, 0.5}, PruningPattern{0, 0, 0.5}}) {
        const Tensor weight = make(out, in), v_state = make_poisoned(*device, out, in), scores_of = make(out, in);
        const Tensor mask = device->make_tensor(DType::u8, out, in, "test");
        device->fill_zero(v_state);
        const Tensor positive_norms = make(1, in);
        device->square_accumulate(make(1, in), positive_norms);
        keep_number("score_and_mask", static_cast<double>(score_and_mask_counting(*device, {{}, positive_norms, 0},
                                                                                  pattern, weight, mask)));
        keep("score_and_mask", weight);
        const DeviceCounters survivors(*device, 2);
        device->count_unchanged(weight, scores_of, mask, survivors.at(0), survivors.at(1));
        keep_number("count_unchanged", static_cast<double>(survivors.read()[0]));
        rmsprop_step(*device, 1e-3F, {}, scores_of, mask, v_state, weight, {});
        keep("rmsprop_step", weight);
        rmsprop_step(*device, 1e-3F, {}, scores_of, {}, v_state, weight, {});
        keep("rmsprop_step", weight);
        const Tensor definite = make_poisoned(*device, in, in);
        device->fill_zero(definite);
        device->accumulate_gram(x, definite);
        keep_number(
            "factor_inverse_gram",
            device->factor_inverse_gram(0.01F, definite, device->make_tensor(DType::u8, 1, in, "test")) ? 1 : 0);
        keep("factor_inverse_gram", definite);
        const Tensor dead = upload_bytes(*device, 1, in, std::vector<std::uint8_t>(in, 0));
        sweep_counting(*device, definite, dead, pattern, scores_of, mask);
        keep("sparsegpt_sweep", scores_of);
    }
    const Tensor half = device->make_tensor(DType::f16, tokens, out, "test"),
                 widened = make_poisoned(*device, tokens, out);
    device->convert(direction, half);
    device->convert(half, widened);
    keep("convert", widened);
    device->round_to(DType::bf16, direction);
    keep("round_to", direction);
    return bits;
}

TEST(Device, ResultsDoNotDependOnTheNumberOfThreads) {
    const auto one = run_everything(1);
    EXPECT_EQ(one.size(), 30U) << "operations";
    for (const int threads : {2, 3, 4}) {
        const auto several = run_everything(threads);
        for (const auto& [name, bits] : one) {
            EXPECT_TRUE(several.at(name) == bits) << name << " with " << threads << " threads";
        }
    }
}

}  // namespace
}  // namespace espalier
