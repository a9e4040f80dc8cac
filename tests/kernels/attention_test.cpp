// Causal attention with grouped queries and its backward pass against float64, with first-order error bounds carried
// through every step, and the backward pass against central differences.
#include "tests/support/expect.h"
#include "tests/support/matrix.h"
#include "tests/support/test_device.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace espalier {
namespace {

using namespace support;

struct Case {
    std::size_t tokens, query_heads, key_value_heads, head_size;
};
/// Around the 64-row tile; without grouping, with it, and with one key head for all; odd head sizes' halves.
constexpr Case cases[] = {{1, 1, 1, 2},  {2, 2, 2, 6},   {5, 4, 2, 8},    {63, 2, 1, 10}, {64, 3, 3, 4},
                          {65, 6, 2, 8}, {130, 4, 1, 6}, {129, 2, 2, 32}, {200, 5, 5, 2}};

class AttentionTest : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Cases, AttentionTest, testing::ValuesIn(cases), [](const auto& info) {
    return "T" + std::to_string(info.param.tokens) + "_q" + std::to_string(info.param.query_heads) + "_kv" +
           std::to_string(info.param.key_value_heads) + "_d" + std::to_string(info.param.head_size);
});

struct Inputs {
    Case sizes;
    Matrix q, k, v, dout;

    explicit Inputs(const Case& c, std::uint64_t seed, double scale = 1) : sizes(c) {
        Random random(seed);
        q = Matrix::random(random, c.tokens, c.query_heads * c.head_size, scale);
        k = Matrix::random(random, c.tokens, c.key_value_heads * c.head_size, scale);
        v = Matrix::random(random, c.tokens, c.key_value_heads * c.head_size);
        dout = Matrix::random(random, c.tokens, c.query_heads * c.head_size);
    }
    AttentionShape shape() const { return {sizes.query_heads, sizes.key_value_heads, sizes.head_size}; }
};

/// One head in float64: scores, probabilities, gradients, each with its bound.
struct HeadReference {
    std::size_t tokens;
    std::vector<double> p, p_bound;      // [T, T], p_bound absolute
    std::vector<double> lse, lse_bound;  // [T]
    std::vector<double> ds, ds_bound;    // [T, T]
    std::vector<double> out, out_bound;  // [T, d]
    std::size_t at(std::size_t i, std::size_t j) const { return i * tokens + j; }
};

HeadReference reference_of_head(const Inputs& in, std::size_t head) {
    const auto [tokens, query_heads, key_value_heads, d] = in.sizes;
    const std::size_t kv = head / (query_heads / key_value_heads);
    const double u = unit_roundoff, scale = 1 / std::sqrt(static_cast<double>(d));
    const auto q = [&](std::size_t t, std::size_t c) { return in.q(t, head * d + c); };
    const auto k = [&](std::size_t t, std::size_t c) { return in.k(t, kv * d + c); };
    const auto v = [&](std::size_t t, std::size_t c) { return in.v(t, kv * d + c); };
    const auto g = [&](std::size_t t, std::size_t c) { return in.dout(t, head * d + c); };
    HeadReference r{tokens,
                    std::vector<double>(tokens * tokens),
                    std::vector<double>(tokens * tokens),
                    std::vector<double>(tokens),
                    std::vector<double>(tokens),
                    std::vector<double>(tokens * tokens),
                    std::vector<double>(tokens * tokens),
                    std::vector<double>(tokens * d),
                    std::vector<double>(tokens * d)};
    for (std::size_t i = 0; i < tokens; ++i) {
        const std::size_t keys = i + 1;
        std::vector<double> s(keys), s_bound(keys);
        double largest = -1e300, worst = 0;
        for (std::size_t j = 0; j < keys; ++j) {
            double size = 0;
            for (std::size_t c = 0; c < d; ++c) {
                s[j] += q(i, c) * k(j, c) * scale;
                size += std::fabs(q(i, c) * k(j, c) * scale);
            }
            s_bound[j] = static_cast<double>(d + 4) * u * size;  // the sum, the scale and the product with it
            largest = std::max(largest, s[j]);
            worst = std::max(worst, s_bound[j]);
        }
        double sum = 0;
        for (std::size_t j = 0; j < keys; ++j) sum += std::exp(s[j] - largest);
        r.lse[i] = largest + std::log(sum);
        // Each exponential: its argument's error, and 2 units in the last place (4 u). The sum of T of them: T u.
        const double sum_relative = 2 * worst + (static_cast<double>(keys) + 6) * u;
        r.lse_bound[i] = sum_relative + u * (std::fabs(largest) + std::fabs(r.lse[i]) + 1);
        double delta = 0, delta_bound = 0;
        std::vector<double> dp(keys), dp_bound(keys), p_relative(keys);
        for (std::size_t j = 0; j < keys; ++j) {
            double& p = r.p[r.at(i, j)];
            p = std::exp(s[j] - r.lse[i]);
            // The larger of the forward pass (by the sum) and the backward pass (by the log-sum-exp).
            p_relative[j] = s_bound[j] + r.lse_bound[i] + sum_relative + u * (std::fabs(s[j] - largest) + 8) +
                            u * std::fabs(s[j] - r.lse[i]);
            r.p_bound[r.at(i, j)] = p * p_relative[j] + 1e-38;  // exponentials below 2^-126 become 0
        }
        for (std::size_t c = 0; c < d; ++c) {
            for (std::size_t j = 0; j < keys; ++j) {
                r.out[i * d + c] += r.p[r.at(i, j)] * v(j, c);
                r.out_bound[i * d + c] +=
                    (r.p_bound[r.at(i, j)] + static_cast<double>(keys + 1) * u * r.p[r.at(i, j)]) * std::fabs(v(j, c));
            }
            delta += g(i, c) * r.out[i * d + c];
            delta_bound += std::fabs(g(i, c)) *
                           (r.out_bound[i * d + c] + static_cast<double>(d + 1) * u * std::fabs(r.out[i * d + c]));
        }
        for (std::size_t j = 0; j < keys; ++j) {
            double size = 0;
            for (std::size_t c = 0; c < d; ++c) {
                dp[j] += g(i, c) * v(j, c);
                size += std::fabs(g(i, c) * v(j, c));
            }
            dp_bound[j] = static_cast<double>(d + 1) * u * size;
            const double p = r.p[r.at(i, j)], difference = dp[j] - delta;
            r.ds[r.at(i, j)] = p * difference * scale;
            r.ds_bound[r.at(i, j)] =
                scale * (r.p_bound[r.at(i, j)] * std::fabs(difference) + p * (dp_bound[j] + delta_bound) +
                         4 * u * p * (std::fabs(difference) + std::fabs(dp[j]) + std::fabs(delta)));
        }
    }
    return r;
}

/// First-order bounds leave out products of errors: 1 % covers them at these sizes.
constexpr double second_order = 1.01;

void scale_bounds(Bounded& result) {
    for (double& bound : result.bounds) bound = second_order * bound + 1e-37;
}

/// sum += coefficient(i) * x(i) with the bound of a float32 sum of `length` terms.
void add_term(Bounded& sum, std::size_t place, double coefficient, double coefficient_bound, double x,
              std::size_t length) {
    sum.values[place] += coefficient * x;
    sum.bounds[place] +=
        (coefficient_bound + static_cast<double>(length + 2) * unit_roundoff * std::fabs(coefficient)) * std::fabs(x);
}

TEST_P(AttentionTest, Forward) {
    const Inputs in(GetParam(), 1);
    const auto [tokens, query_heads, key_value_heads, d] = in.sizes;
    const auto device = make_test_device();
    const Tensor out = make_poisoned(*device, tokens, query_heads * d),
                 lse = make_poisoned(*device, query_heads, tokens);
    device->attention(upload(*device, tokens, in.q.columns, in.q.values),
                      upload(*device, tokens, in.k.columns, in.k.values),
                      upload(*device, tokens, in.v.columns, in.v.values), in.shape(), out, lse);
    Bounded expected(tokens * query_heads * d), expected_lse(query_heads * tokens);
    for (std::size_t head = 0; head < query_heads; ++head) {
        const HeadReference r = reference_of_head(in, head);
        for (std::size_t t = 0; t < tokens; ++t) {
            expected_lse.values[head * tokens + t] = r.lse[t];
            expected_lse.bounds[head * tokens + t] = r.lse_bound[t];
            for (std::size_t c = 0; c < d; ++c) {
                expected.values[t * out.view().columns + head * d + c] = r.out[t * d + c];
                expected.bounds[t * out.view().columns + head * d + c] = r.out_bound[t * d + c];
            }
        }
    }
    scale_bounds(expected);
    scale_bounds(expected_lse);
    expect_within(download(*device, out), expected.values, expected.bounds, "out");
    expect_within(download(*device, lse), expected_lse.values, expected_lse.bounds, "log_sum_exp");
}

struct Gradients {
    std::vector<float> dq, dk, dv;
};

Gradients run_backward(Device& device, const Inputs& in) {
    const std::size_t tokens = in.sizes.tokens, width = in.q.columns, kv_width = in.k.columns;
    const Tensor q = upload(device, tokens, width, in.q.values), k = upload(device, tokens, kv_width, in.k.values),
                 v = upload(device, tokens, kv_width, in.v.values),
                 dout = upload(device, tokens, width, in.dout.values);
    const Tensor out = make_poisoned(device, tokens, width), lse = make_poisoned(device, in.sizes.query_heads, tokens);
    device.attention(q, k, v, in.shape(), out, lse);
    const Tensor dq = make_poisoned(device, tokens, width), dk = make_poisoned(device, tokens, kv_width),
                 dv = make_poisoned(device, tokens, kv_width);
    device.attention_backward(q, k, v, out, lse, dout, in.shape(), dq, dk, dv);
    return {download(device, dq), download(device, dk), download(device, dv)};
}

TEST_P(AttentionTest, Backward) {
    const Inputs in(GetParam(), 2);
    const auto [tokens, query_heads, key_value_heads, d] = in.sizes;
    const std::size_t group = query_heads / key_value_heads, width = query_heads * d, kv_width = key_value_heads * d;
    Bounded dq(tokens * width), dk(tokens * kv_width), dv(tokens * kv_width);
    for (std::size_t head = 0; head < query_heads; ++head) {
        const std::size_t kv = head / group;
        const HeadReference r = reference_of_head(in, head);
        for (std::size_t i = 0; i < tokens; ++i) {
            for (std::size_t j = 0; j <= i; ++j) {
                for (std::size_t c = 0; c < d; ++c) {
                    const std::size_t at = r.at(i, j);
                    add_term(dq, i * width + head * d + c, r.ds[at], r.ds_bound[at], in.k(j, kv * d + c), tokens);
                    add_term(dk, j * kv_width + kv * d + c, r.ds[at], r.ds_bound[at], in.q(i, head * d + c),
                             tokens + group);
                    add_term(dv, j * kv_width + kv * d + c, r.p[at], r.p_bound[at], in.dout(i, head * d + c),
                             tokens + group);
                }
            }
        }
    }
    for (Bounded* const gradient : {&dq, &dk, &dv}) scale_bounds(*gradient);
    const auto device = make_test_device();
    const Gradients found = run_backward(*device, in);
    expect_within(found.dq, dq.values, dq.bounds, "dq");
    expect_within(found.dk, dk.values, dk.bounds, "dk");
    expect_within(found.dv, dv.values, dv.bounds, "dv");
}

/// sum dout * out in float64, with one input element moved.
double loss(const Inputs& in, char which, std::size_t element, double by) {
    const auto [tokens, query_heads, key_value_heads, d] = in.sizes;
    std::vector<double> q(in.q.values.begin(), in.q.values.end()), k(in.k.values.begin(), in.k.values.end()),
        v(in.v.values.begin(), in.v.values.end());
    (which == 'q' ? q : which == 'k' ? k : v)[element] += by;
    double total = 0;
    for (std::size_t head = 0; head < query_heads; ++head) {
        const std::size_t kv = head / (query_heads / key_value_heads);
        for (std::size_t i = 0; i < tokens; ++i) {
            double sum = 0, weighted = 0;
            for (std::size_t j = 0; j <= i; ++j) {
                double score = 0, value = 0;
                for (std::size_t c = 0; c < d; ++c) {
                    score += q[i * in.q.columns + head * d + c] * k[j * in.k.columns + kv * d + c];
                    value += in.dout(i, head * d + c) * v[j * in.v.columns + kv * d + c];
                }
                const double weight = std::exp(score / std::sqrt(static_cast<double>(d)));
                sum += weight;
                weighted += weight * value;
            }
            total += weighted / sum;
        }
    }
    return total;
}

TEST(AttentionBackward, IsTheGradient) {
    const Inputs in({6, 4, 2, 4}, 3);
    const auto device = make_test_device();
    const Gradients found = run_backward(*device, in);
    const double step = 1e-5;
    const auto check = [&](char which, const std::vector<float>& gradient) {
        for (std::size_t i = 0; i < gradient.size(); ++i) {
            const double difference = (loss(in, which, i, step) - loss(in, which, i, -step)) / (2 * step);
            // float32 gradients of order 1 to 10 over sums of 6 to 12 terms; truncation and cancellation below 1e-9.
            ASSERT_NEAR(static_cast<double>(gradient[i]), difference, 12 * 10 * unit_roundoff) << which << i;
        }
    };
    check('q', found.dq);
    check('k', found.dk);
    check('v', found.dv);
}

TEST(Attention, IsCausal) {
    // What comes later must not change a bit of what came before, even when it is not a number.
    const Inputs in({130, 4, 2, 8}, 4);
    const auto device = make_test_device();
    const auto first_rows = [&](const Inputs& inputs, std::size_t rows) {
        const Tensor out = make_poisoned(*device, 130, inputs.q.columns), lse = make_poisoned(*device, 4, 130);
        device->attention(upload(*device, 130, inputs.q.columns, inputs.q.values),
                          upload(*device, 130, inputs.k.columns, inputs.k.values),
                          upload(*device, 130, inputs.v.columns, inputs.v.values), inputs.shape(), out, lse);
        return bits_of(download(*device, out.view().row_range(0, rows)));
    };
    for (const std::size_t rows : {1U, 63U, 64U, 65U, 129U}) {
        Inputs changed = in;
        for (std::size_t i = rows * in.k.columns; i < in.k.values.size(); ++i) {
            changed.k.values[i] = 100;
            changed.v.values[i] = -100;
        }
        EXPECT_EQ(first_rows(changed, rows), first_rows(in, rows)) << rows;
    }
}

TEST(Attention, LargeScoresDoNotOverflow) {
    const Inputs in({65, 2, 2, 16}, 5, 30);  // scores of some thousands
    const auto device = make_test_device();
    const Tensor out = make_poisoned(*device, 65, 32), lse = make_poisoned(*device, 2, 65);
    device->attention(upload(*device, 65, 32, in.q.values), upload(*device, 65, 32, in.k.values),
                      upload(*device, 65, 32, in.v.values), in.shape(), out, lse);
    EXPECT_EQ(nonfinite_in(*device, out), 0U);
    EXPECT_EQ(nonfinite_in(*device, lse), 0U);
}

}  // namespace
}  // namespace espalier
