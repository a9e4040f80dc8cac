// Attention of one more token to what is kept of those before it, against float64.
#include "tests/support/expect.h"
#include "tests/support/matrix.h"
#include "tests/support/test_device.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using namespace support;

struct StepCase {
    std::size_t sequences, query_heads, key_value_heads, head_size, capacity;
};

TEST(AttentionStepTest, EveryPositionFollowsTheDefinition) {
    const auto device = make_test_device();
    for (const StepCase& c : {StepCase{3, 4, 2, 8, 7}, {1, 1, 1, 256, 3}, {5, 6, 2, 80, 11}, {2, 3, 3, 33, 130}}) {
        Random random(c.capacity);
        const std::size_t width = c.key_value_heads * c.head_size, query_width = c.query_heads * c.head_size;
        const AttentionShape shape{c.query_heads, c.key_value_heads, c.head_size};
        const Tensor keys = make_poisoned(*device, c.sequences * c.capacity, width),
                     values = make_poisoned(*device, c.sequences * c.capacity, width);
        std::vector<Matrix> of_keys, of_values;
        for (std::size_t position = 0; position < c.capacity; ++position) {
            const Matrix q = Matrix::random(random, c.sequences, query_width);
            of_keys.push_back(Matrix::random(random, c.sequences, width));
            of_values.push_back(Matrix::random(random, c.sequences, width));
            const Tensor out = make_poisoned(*device, c.sequences, query_width);
            device->attention_step(upload(*device, c.sequences, query_width, q.values),
                                   upload(*device, c.sequences, width, of_keys.back().values),
                                   upload(*device, c.sequences, width, of_values.back().values), shape, position, keys,
                                   values, out);
            Bounded expected(c.sequences * query_width);
            for (std::size_t s = 0; s < c.sequences; ++s) {
                for (std::size_t head = 0; head < c.query_heads; ++head) {
                    const std::size_t first = head / (c.query_heads / c.key_value_heads) * c.head_size;
                    std::vector<double> weights;
                    double sum = 0;
                    for (std::size_t t = 0; t <= position; ++t) {
                        double score = 0;
                        for (std::size_t j = 0; j < c.head_size; ++j)
                            score += q(s, head * c.head_size + j) * of_keys[t](s, first + j);
                        weights.push_back(std::exp(score / std::sqrt(static_cast<double>(c.head_size))));
                        sum += weights.back();
                    }
                    for (std::size_t j = 0; j < c.head_size; ++j) {
                        double& result = expected.values[s * query_width + head * c.head_size + j];
                        double size = 0;
                        for (std::size_t t = 0; t <= position; ++t) {
                            const double term = weights[t] / sum * of_values[t](s, first + j);
                            result += term;
                            size += std::fabs(term);
                        }
                        // A score of c terms errs by about (c + 2) u of its size, a few tens at most.
                        expected.bounds[s * query_width + head * c.head_size + j] =
                            static_cast<double>(20 * c.head_size + position + 10) * unit_roundoff * size;
                    }
                }
            }
            expect_within(download(*device, out), expected.values, expected.bounds, "out");
        }
    }
}

}  // namespace
}  // namespace espalier
