// Operations of a GPU in its 16-bit compute types and with TF32 products, against the CPU's float32 on the same rounded
// inputs: the result may be off by the rounding of inputs, intermediate values and the result, not more.
#include "tests/support/random.h"
#include "tests/support/test_device.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

namespace espalier {
namespace {

using namespace support;

struct ComputeType {
    DType dtype;
    Float32Products products;
    double tolerance;  ///< of ||result - reference|| / ||reference||: a few roundings
    const char* name;
};
constexpr ComputeType compute_types[] = {{DType::bf16, Float32Products::exact, 1.5e-2, "bfloat16"},
                                         {DType::f16, Float32Products::exact, 2e-3, "float16"},
                                         {DType::f32, Float32Products::tf32, 3e-3, "tf32"},
                                         {DType::f32, Float32Products::exact, 5e-6, "float32"}};

class ComputeTypeTest : public testing::TestWithParam<ComputeType> {
  protected:
    void SetUp() override {
        if (!test_device_is_gpu()) GTEST_SKIP() << "the CPU computes in float32 only";
        gpu_ = make_test_device();
        cpu_ = make_cpu_device(1);
        gpu_->set_float32_products(GetParam().products);
    }

    /// A tensor on both devices with the same values.
    struct Both {
        Tensor gpu, cpu;
    };
    Both random(std::size_t rows, std::size_t columns, double scale = 1) {
        std::vector<float> values = random_.normals(rows * columns);
        for (float& value : values) value *= static_cast<float>(scale);
        const DType dtype = GetParam().dtype;
        std::vector<std::byte> rounded(values.size() * bytes_of(dtype));
        round_from_float(dtype, values.data(), values.size(), rounded.data());
        widen_to_float(dtype, rounded.data(), values.size(), values.data());
        Both both{gpu_->make_tensor(dtype, rows, columns, "test"), upload(*cpu_, rows, columns, values)};
        gpu_->copy_from_host(rounded.data(), both.gpu);
        return both;
    }
    Both random_float(std::size_t rows, std::size_t columns) {
        const std::vector<float> values = random_.normals(rows * columns);
        return {upload(*gpu_, rows, columns, values), upload(*cpu_, rows, columns, values)};
    }
    Both poisoned(std::size_t rows, std::size_t columns, bool wide = false) {
        const DType dtype = wide ? DType::f32 : GetParam().dtype;
        Both both{gpu_->make_tensor(dtype, rows, columns, "test"), make_poisoned(*cpu_, rows, columns)};
        const std::vector<std::byte> ones(rows * columns * bytes_of(dtype), std::byte{0xFF});  // not a number
        gpu_->copy_from_host(ones.data(), both.gpu);
        return both;
    }
    void run(const std::function<void(Device&, const std::function<TensorView(const Both&)>&)>& operation) {
        operation(*gpu_, [](const Both& both) { return both.gpu.view(); });
        operation(*cpu_, [](const Both& both) { return both.cpu.view(); });
    }
    void expect_close(const Both& both, const char* what, double factor = 1) {
        const TensorView view = both.gpu.view();
        std::vector<std::byte> raw(view.bytes());
        gpu_->copy_to_host(view, raw.data());
        std::vector<float> found(view.size());
        widen_to_float(view.dtype, raw.data(), found.size(), found.data());
        const std::vector<float> expected = download(*cpu_, both.cpu);
        double error = 0, size = 0;
        for (std::size_t i = 0; i < found.size(); ++i) {
            error += std::pow(static_cast<double>(found[i]) - static_cast<double>(expected[i]), 2);
            size += std::pow(static_cast<double>(expected[i]), 2);
        }
        const double relative = std::sqrt(error / size);
        EXPECT_TRUE(relative < factor * GetParam().tolerance) << what << ": " << relative;  // also false for NaN
    }

    Random random_{1};
    std::unique_ptr<Device> gpu_, cpu_;
};
INSTANTIATE_TEST_SUITE_P(Types, ComputeTypeTest, testing::ValuesIn(compute_types),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(ComputeTypeTest, Attention) {
    struct Case {
        std::size_t tokens, heads, key_value_heads, head_size;
    };
    // Around the tiles of 32, 64 and 128 rows; widths 64, 128 and 256; with grouped heads.
    for (const Case& c : {Case{200, 2, 1, 128}, {129, 2, 2, 64}, {66, 4, 2, 80}, {97, 1, 1, 256}, {33, 3, 1, 48}}) {
        SCOPED_TRACE("T " + std::to_string(c.tokens) + ", head size " + std::to_string(c.head_size));
        const std::size_t width = c.heads * c.head_size, key_width = c.key_value_heads * c.head_size;
        const Both q = random(c.tokens, width), k = random(c.tokens, key_width), v = random(c.tokens, key_width);
        const Both dout = random(c.tokens, width), out = poisoned(c.tokens, width);
        const Both lse = poisoned(c.heads, c.tokens, true);
        const Both dq = poisoned(c.tokens, width), dk = poisoned(c.tokens, key_width),
                   dv = poisoned(c.tokens, key_width);
        const AttentionShape shape{c.heads, c.key_value_heads, c.head_size};
        run([&](Device& device, const auto& on) {
            device.attention(on(q), on(k), on(v), shape, on(out), on(lse));
            device.attention_backward(on(q), on(k), on(v), on(out), on(lse), on(dout), shape, on(dq), on(dk), on(dv));
        });
        expect_close(out, "out");
        expect_close(lse, "log_sum_exp");
        expect_close(dq, "dq", 2);
        expect_close(dk, "dk", 2);
        expect_close(dv, "dv", 2);
    }
}

TEST_P(ComputeTypeTest, Products) {
    const std::size_t tokens = 70, in = 96, out = 72;
    const Both x = random(tokens, in), weight = random(out, in), dy = random(tokens, out);
    const Both y = poisoned(tokens, out), dx = poisoned(tokens, in), onto = poisoned(tokens, out, true);
    const Both residual = random_float(tokens, out), dw = poisoned(out, in, true), dw_of_other = poisoned(8, in, true);
    const Both other_dy = random(tokens, 8);
    run([&](Device& device, const auto& on) {
        device.linear(on(x), on(weight), {}, on(y));
        device.linear(on(x), on(weight), on(residual), on(onto));
        device.linear_input_gradient(on(dy), on(weight), false, on(dx));
        const auto copy_to = [&](TensorView whole) {
            return [&device, whole](std::size_t row, TensorView panel) {
                device.copy(panel, whole.row_range(row, row + panel.rows));
            };
        };
        int finished = 0;
        const WeightGradient gradients[] = {
            {on(dy), copy_to(on(dw)), [&] { EXPECT_EQ(finished++, 0); }},
            {on(other_dy), copy_to(on(dw_of_other)), [&] { EXPECT_EQ(finished++, 1); }}};
        device.linear_weight_gradients(on(x), gradients);
        EXPECT_EQ(finished, 2);
    });
    expect_close(y, "y");
    expect_close(onto, "y on a residual");
    expect_close(dx, "dx");
    expect_close(dw, "dW");
    expect_close(dw_of_other, "dW of the other layer");
}

TEST_P(ComputeTypeTest, NormsAndElements) {
    const std::size_t tokens = 37, width = 136, head_size = 8;
    const Both x = random_float(tokens, width), weight = random_float(1, width), inverse = poisoned(1, tokens, true);
    const Both normed = poisoned(tokens, width), gate = random(tokens, width), up = random(tokens, width);
    const Both out = poisoned(tokens, width), dout = random(tokens, width), bias = random_float(1, width);
    const Both cosine = random_float(tokens, head_size / 2), sine = random_float(tokens, head_size / 2);
    const Both sums = poisoned(1, width, true), change = poisoned(tokens, width),
               restored = poisoned(tokens, width, true);
    const Both y = random_float(tokens, width);
    run([&](Device& device, const auto& on) {
        device.rms_norm(on(x), on(weight), 1e-5F, on(normed), on(inverse));
        device.column_square_sums(on(normed), on(sums));
        device.apply_rope(on(normed), head_size, on(cosine), on(sine), false);
        device.add_bias(on(bias), on(normed));
        device.silu_multiply(on(gate), on(up), on(out));
        device.silu_multiply_backward(on(dout), on(gate), on(up));
        device.subtract(on(y), on(x), on(change));
        device.sum(on(x), on(change), on(restored));
    });
    expect_close(normed, "rms_norm, apply_rope and add_bias");
    expect_close(sums, "column_square_sums");
    expect_close(out, "silu_multiply");
    expect_close(gate, "gradient of gate");
    expect_close(up, "gradient of up");
    expect_close(change, "subtract");
    expect_close(restored, "sum");
}

TEST_P(ComputeTypeTest, UpdatesOfLowRank) {
    for (const std::size_t in : {std::size_t{75}, std::size_t{80}}) {
        const Both base = random(70, in), weight = poisoned(70, in), x = random(9, in), y = poisoned(9, in);
        const Both a = random_float(16, in), b = random_float(70, 16), wide = poisoned(9, in, true);
        const DropoutMask mask{0.4, 11, 3, (std::uint64_t{1} << 32) - 4};
        run([&](Device& device, const auto& on) {
            device.add_low_rank_update(on(base), on(a), on(b), 0.3F, ZeroWeights::kept, on(weight));
            device.dropout(mask, 1.5F, -1, false, on(x), on(y));
            device.dropout(mask, 1.5F, -1, true, on(x), on(y));
            device.dropout(mask, 1.5F, -1, false, on(x), on(wide));
        });
        expect_close(weight, "weight");
        expect_close(y, "y");
        expect_close(wide, "wide");
    }
}

TEST_P(ComputeTypeTest, AttentionSteps) {
    constexpr std::size_t sequences = 3, capacity = 9;
    for (const AttentionShape& shape : {AttentionShape{4, 2, 64}, AttentionShape{3, 1, 80}}) {
        const std::size_t width = shape.query_heads * shape.head_size,
                          of_keys = shape.key_value_heads * shape.head_size;
        const Both keys = poisoned(sequences * capacity, of_keys), values = poisoned(sequences * capacity, of_keys);
        const Both out = poisoned(sequences, width);
        for (std::size_t position = 0; position < capacity; ++position) {
            const Both q = random(sequences, width), k = random(sequences, of_keys), v = random(sequences, of_keys);
            run([&](Device& device, const auto& on) {
                device.attention_step(on(q), on(k), on(v), shape, position, on(keys), on(values), on(out));
            });
        }
        expect_close(out, "out");
    }
}

}  // namespace
}  // namespace espalier
