// Forward and backward pass of a block of every family against a float64 block, gradients by central differences of it.
#include "src/model/decoder_block.h"

#include "tests/support/expect.h"
#include "tests/support/test_device.h"
#include "tests/support/tiny_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <mutex>

namespace espalier {
namespace {

using namespace support;

constexpr std::size_t tokens = 7;

struct BlockProblem {
    ModelConfig config;
    BlockLayout layout;
    HostBlock block;
    std::vector<float> x, dy;

    explicit BlockProblem(const std::string& family, std::uint64_t seed = 1)
        : config(parse_tiny_config(family)), layout(config) {
        Random random(seed);
        block = random_block(random, layout);
        x = random.normals(tokens * config.hidden_size);
        dy = random.normals(tokens * config.hidden_size);
    }
    std::vector<double> wide_x() const { return {x.begin(), x.end()}; }
};

/// Assembles the panels of every layer and counts what it was told.
class CollectingSink final : public WeightGradientSink {
  public:
    CollectingSink(Device& device, const BlockLayout& layout) : device_(device), layout_(layout) {
        for (const MatrixShape& matrix : layout.matrices()) {
            gradients.emplace_back(matrix.size(), std::nanf(""));
        }
    }
    void consume(LinearLayer layer, std::size_t row_begin, TensorView panel) override {
        const std::vector<float> rows = download(device_, panel);
        const std::lock_guard lock(mutex_);
        std::copy(rows.begin(), rows.end(),
                  gradients[index_of(layer)].begin() +
                      static_cast<std::ptrdiff_t>(row_begin * layout_.matrix(layer).columns));
    }
    void finished(LinearLayer layer) override { order.push_back(layer); }

    std::vector<std::vector<float>> gradients;  ///< by matrix
    std::vector<LinearLayer> order;

  private:
    Device& device_;
    const BlockLayout& layout_;
    std::mutex mutex_;
};

class DecoderBlockTest : public testing::TestWithParam<std::string> {
  protected:
    std::unique_ptr<Device> device_ = make_test_device();
    BlockProblem problem_{GetParam()};
    BlockWeights weights_ = upload_block(*device_, problem_.layout, problem_.block);
    Tensor x_ = upload(*device_, tokens, problem_.config.hidden_size, problem_.x);
};
INSTANTIATE_TEST_SUITE_P(Families, DecoderBlockTest, testing::ValuesIn(families), [](const auto& info) {
    std::string name = info.param;
    std::replace(name.begin(), name.end(), '-', '_');
    return name;
});

TEST_P(DecoderBlockTest, ForwardEqualsFloat64) {
    DecoderBlock decoder(*device_, problem_.config, tokens, Passes::forward_only, DType::f32);
    for (std::size_t index = 0; index < problem_.config.blocks.size(); ++index) {
        weights_.block = index;
        const Tensor y = make_poisoned(*device_, tokens, problem_.config.hidden_size);
        decoder.forward(weights_, x_, y, nullptr);
        const std::vector<double> expected =
            reference_block(problem_.config, problem_.block, problem_.wide_x(), tokens, index);
        // Values of order 1 to 5 go through 10 steps, each a sum of at most 24 terms: 24 x 10 roundings of 5 at the
        // worst; rounding errors are random, so a tenth of that is not reached.
        const std::vector<double> bounds(expected.size(), 24 * unit_roundoff * 5);
        expect_within(download(*device_, y), expected, bounds, "y of block " + std::to_string(index));
        // The same sample again, in place.
        const Tensor in_place = upload(*device_, tokens, problem_.config.hidden_size, problem_.x);
        decoder.forward(weights_, in_place, in_place, nullptr);
        EXPECT_EQ(bits_of(download(*device_, in_place)), bits_of(download(*device_, y)));
    }
}

TEST_P(DecoderBlockTest, ShorterSamplesNeedNoBlockOfTheirOwn) {
    DecoderBlock longer(*device_, problem_.config, tokens + 5, Passes::forward_and_backward, DType::f32),
        exact(*device_, problem_.config, tokens, Passes::forward_and_backward, DType::f32);
    const Tensor y = make_poisoned(*device_, tokens, problem_.config.hidden_size),
                 same = make_poisoned(*device_, tokens, problem_.config.hidden_size);
    CollectingSink found(*device_, problem_.layout), expected(*device_, problem_.layout);
    exact.forward(weights_, x_, same, nullptr);
    exact.backward(weights_, upload(*device_, tokens, problem_.config.hidden_size, problem_.dy), expected);
    longer.forward(weights_, x_, y, nullptr);
    longer.backward(weights_, upload(*device_, tokens, problem_.config.hidden_size, problem_.dy), found);
    EXPECT_EQ(bits_of(download(*device_, y)), bits_of(download(*device_, same)));
    for (const LinearLayer layer : problem_.layout.linear_layers()) {
        EXPECT_EQ(bits_of(found.gradients[index_of(layer)]), bits_of(expected.gradients[index_of(layer)]));
    }
}

// Two samples of seven and six tokens, of which the first four are the same, and one of its own, in one pass.
TEST_P(DecoderBlockTest, SamplesMayShareTheirBeginning) {
    const std::size_t hidden = problem_.config.hidden_size;
    Random random(9);
    std::vector<float> other = problem_.x;
    const std::vector<float> end = random.normals(2 * hidden), alone = random.normals(3 * hidden);
    std::copy(end.begin(), end.end(), other.begin() + static_cast<std::ptrdiff_t>(4 * hidden));
    std::vector<float> packed = problem_.x;
    packed.insert(packed.end(), end.begin(), end.end());
    packed.insert(packed.end(), alone.begin(), alone.end());
    DecoderBlock decoder(*device_, problem_.config, PassShape{tokens, 16, Passes::forward_only, DType::f32, true});
    const Tensor x = upload(*device_, 12, hidden, packed), y = make_poisoned(*device_, 12, hidden);
    const std::vector<RowSegment> segments = {{4}, {3, 0, 4}, {2, 0, 4}, {3}};
    decoder.forward(weights_, x, y, segments);
    const std::vector<float> found = download(*device_, y);
    const auto expect_rows = [&](const std::vector<float>& sample, std::size_t length, std::size_t first,
                                 std::size_t place, const char* what) {
        const Tensor input = upload(*device_, length, hidden, std::span(sample).first(length * hidden));
        const Tensor output = make_poisoned(*device_, length, hidden);
        const std::vector<RowSegment> whole = {{length}};
        decoder.forward(weights_, input, output, whole);
        const std::vector<float> expected = download(*device_, output);
        for (std::size_t i = 0; i < (length - first) * hidden; ++i) {
            const float value = expected[first * hidden + i];
            ASSERT_NEAR(found[place * hidden + i], value, 1e-5 * (1 + std::abs(value))) << what << ", element " << i;
        }
    };
    expect_rows(problem_.x, 7, 0, 0, "the first sample");
    expect_rows(other, 6, 4, 7, "the end of the second");
    expect_rows(alone, 3, 0, 9, "the third");
}

TEST_P(DecoderBlockTest, BackwardIsTheGradient) {
    DecoderBlock decoder(*device_, problem_.config, tokens, Passes::forward_and_backward, DType::f32);
    const Tensor y = make_poisoned(*device_, tokens, problem_.config.hidden_size),
                 dy = upload(*device_, tokens, problem_.config.hidden_size, problem_.dy);
    CollectingSink sink(*device_, problem_.layout);
    decoder.forward(weights_, x_, y, nullptr);
    decoder.backward(weights_, dy, sink);
    const std::vector<double> x = problem_.wide_x();
    const double step = 1e-4;
    for (const LinearLayer layer : problem_.layout.linear_layers()) {
        const std::vector<float>& gradient = sink.gradients[index_of(layer)];
        double largest = 0;
        for (const float value : gradient) largest = std::max(largest, std::fabs(static_cast<double>(value)));
        // Central differences err by step^2 / 6 times a third derivative (1e-8 of the gradients' size) and 1e-16 /
        // step. float32: the backward pass is about 20 operations deep with sums of up to 24 terms of the gradients'
        // size.
        const double bound = 20 * 24 * unit_roundoff * largest / 4;
        for (std::size_t i = 0; i < gradient.size(); i += 1 + i % 3) {
            const auto loss = [&](double by) {
                const std::vector<double> moved =
                    reference_block_moved(problem_.config, problem_.block, layer, i, by, x, tokens);
                double sum = 0;
                for (std::size_t j = 0; j < moved.size(); ++j) sum += static_cast<double>(problem_.dy[j]) * moved[j];
                return sum;
            };
            const double difference = (loss(step) - loss(-step)) / (2 * step);
            ASSERT_NEAR(static_cast<double>(gradient[i]), difference, bound)
                << problem_.layout.matrix(layer).name << ", element " << i;
        }
    }
}

TEST_P(DecoderBlockTest, LayersAreFinishedFromTheOutputInwards) {
    DecoderBlock decoder(*device_, problem_.config, tokens, Passes::forward_and_backward, DType::f32);
    const Tensor y = make_poisoned(*device_, tokens, problem_.config.hidden_size),
                 dy = upload(*device_, tokens, problem_.config.hidden_size, problem_.dy);
    CollectingSink sink(*device_, problem_.layout);
    decoder.forward(weights_, x_, y, nullptr);
    decoder.backward(weights_, dy, sink);
    const AttentionTensors& attention = problem_.layout.attention;
    const MlpTensors& mlp = problem_.layout.mlp;
    EXPECT_EQ(sink.order, (std::vector<LinearLayer>{mlp.down, mlp.up, mlp.gate, attention.o, attention.v, attention.k,
                                                    attention.q}));
    EXPECT_EQ(sink.order, problem_.layout.backward_order());
}

TEST_P(DecoderBlockTest, BackwardToInputIsTheGradientWithRespectToX) {
    DecoderBlock decoder(*device_, problem_.config, tokens, Passes::forward_and_backward, DType::f32);
    const Tensor y = make_poisoned(*device_, tokens, problem_.config.hidden_size),
                 dy = upload(*device_, tokens, problem_.config.hidden_size, problem_.dy);
    CollectingSink sink(*device_, problem_.layout);
    decoder.forward(weights_, x_, y, nullptr);
    decoder.backward_to_input(weights_, dy, x_, sink);
    const std::vector<float> gradient = download(*device_, dy);
    double largest = 0;
    for (const float value : gradient) largest = std::max(largest, std::fabs(static_cast<double>(value)));
    const double step = 1e-4, bound = 20 * 24 * unit_roundoff * largest / 4;  // as above
    for (std::size_t i = 0; i < gradient.size(); ++i) {
        const auto loss = [&](double by) {
            std::vector<double> x = problem_.wide_x();
            x[i] += by;
            const std::vector<double> moved = reference_block(problem_.config, problem_.block, x, tokens);
            double sum = 0;
            for (std::size_t j = 0; j < moved.size(); ++j) sum += static_cast<double>(problem_.dy[j]) * moved[j];
            return sum;
        };
        ASSERT_NEAR(static_cast<double>(gradient[i]), (loss(step) - loss(-step)) / (2 * step), bound) << i;
    }
}

/// Takes the factors of some layers' gradients, and the panels of the others.
class FactorSink final : public WeightGradientSink {
  public:
    FactorSink(CollectingSink& inner, Device& device, const BlockLayout& layout)
        : inner_(inner), device_(device), layout_(layout) {}
    bool consume_factors(LinearLayer layer, TensorView x, TensorView dy) override {
        if (index_of(layer) % 2 == 0) return false;
        const MatrixShape& matrix = layout_.matrix(layer);
        EXPECT_EQ(x.columns, matrix.columns);
        EXPECT_EQ(dy.columns, matrix.rows);
        device_.linear_weight_gradient(
            dy, x, [&](std::size_t row_begin, TensorView panel) { inner_.consume(layer, row_begin, panel); });
        return true;
    }
    void consume(LinearLayer layer, std::size_t row_begin, TensorView panel) override {
        EXPECT_EQ(index_of(layer) % 2, 0U);
        inner_.consume(layer, row_begin, panel);
    }
    void finished(LinearLayer layer) override { inner_.finished(layer); }

  private:
    CollectingSink& inner_;
    Device& device_;
    const BlockLayout& layout_;
};

TEST_P(DecoderBlockTest, ASinkMayTakeFactorsInsteadOfPanels) {
    DecoderBlock decoder(*device_, problem_.config, tokens, Passes::forward_and_backward, DType::f32);
    const Tensor y = make_poisoned(*device_, tokens, problem_.config.hidden_size);
    CollectingSink expected(*device_, problem_.layout), found(*device_, problem_.layout);
    decoder.forward(weights_, x_, y, nullptr);
    decoder.backward(weights_, upload(*device_, tokens, problem_.config.hidden_size, problem_.dy), expected);
    FactorSink factors(found, *device_, problem_.layout);
    decoder.forward(weights_, x_, y, nullptr);
    decoder.backward(weights_, upload(*device_, tokens, problem_.config.hidden_size, problem_.dy), factors);
    for (const LinearLayer layer : problem_.layout.linear_layers()) {
        EXPECT_EQ(bits_of(found.gradients[index_of(layer)]), bits_of(expected.gradients[index_of(layer)]));
    }
    EXPECT_EQ(found.order, expected.order);
}

/// Destroys every weight as soon as its gradient is handed out, as an immediate optimiser step may.
class DestroyingSink final : public WeightGradientSink {
  public:
    DestroyingSink(CollectingSink& inner, Device& device, BlockWeights& weights)
        : inner_(inner), device_(device), weights_(weights) {}
    void consume(LinearLayer layer, std::size_t row_begin, TensorView panel) override {
        inner_.consume(layer, row_begin, panel);
        const std::vector<float> nan(panel.size(), std::nanf(""));
        device_.copy_from_host(nan.data(),
                               weights_.matrices.matrix(layer).row_range(row_begin, row_begin + panel.rows));
    }

  private:
    CollectingSink& inner_;
    Device& device_;
    BlockWeights& weights_;
};

TEST_P(DecoderBlockTest, AWeightMayChangeOnceItsGradientIsHandedOut) {
    DecoderBlock decoder(*device_, problem_.config, tokens, Passes::forward_and_backward, DType::f32);
    const Tensor y = make_poisoned(*device_, tokens, problem_.config.hidden_size);
    CollectingSink expected(*device_, problem_.layout), found(*device_, problem_.layout);
    decoder.forward(weights_, x_, y, nullptr);
    decoder.backward(weights_, upload(*device_, tokens, problem_.config.hidden_size, problem_.dy), expected);
    DestroyingSink destroying(found, *device_, weights_);
    decoder.forward(weights_, x_, y, nullptr);
    decoder.backward(weights_, upload(*device_, tokens, problem_.config.hidden_size, problem_.dy), destroying);
    for (const LinearLayer layer : problem_.layout.linear_layers()) {
        EXPECT_EQ(bits_of(found.gradients[index_of(layer)]), bits_of(expected.gradients[index_of(layer)]))
            << problem_.layout.matrix(layer).name;
    }
}

class RecordingObserver final : public LinearInputObserver {
  public:
    explicit RecordingObserver(Device& device) : device_(device) {}
    void observe(LinearInput input, TensorView x) override { seen.emplace_back(input, download(device_, x)); }
    std::vector<std::pair<LinearInput, std::vector<float>>> seen;

  private:
    Device& device_;
};

TEST_P(DecoderBlockTest, ObserverSeesEachInputOnce) {
    DecoderBlock decoder(*device_, problem_.config, tokens, Passes::forward_only, DType::f32);
    const Tensor y = make_poisoned(*device_, tokens, problem_.config.hidden_size);
    RecordingObserver observer(*device_);
    decoder.forward(weights_, x_, y, &observer);
    ASSERT_EQ(observer.seen.size(), problem_.layout.linear_inputs().size());
    for (const LinearInput input : problem_.layout.linear_inputs()) {
        EXPECT_EQ(observer.seen[index_of(input)].first, input);
        EXPECT_EQ(observer.seen[index_of(input)].second.size(), tokens * problem_.layout.input(input).width);
    }
    if (problem_.layout.mlp.output_norm) return;  // then the sum below has a norm in it
    // The last is what enters down_proj: with the attention half's output it gives y.
    const Tensor without_mlp = make_poisoned(*device_, tokens, problem_.config.hidden_size);
    HostBlock silent = problem_.block;
    const LinearLayer down = problem_.layout.mlp.down;
    std::fill(silent.matrices[index_of(down)].begin(), silent.matrices[index_of(down)].end(), 0.0F);
    const BlockWeights silent_weights = upload_block(*device_, problem_.layout, silent);
    decoder.forward(silent_weights, x_, without_mlp, nullptr);
    device_->linear(upload(*device_, tokens, problem_.config.intermediate_size, observer.seen[3].second),
                    weights_.matrices.matrix(down), without_mlp, without_mlp);
    const std::vector<float> expected = download(*device_, y), found = download(*device_, without_mlp);
    for (std::size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 30 * unit_roundoff * 5);
}

TEST_P(DecoderBlockTest, ObservingInputsStopsAtTheLastOneAskedFor) {
    DecoderBlock decoder(*device_, problem_.config, tokens, Passes::forward_only, DType::f32);
    RecordingObserver all(*device_);
    decoder.forward(weights_, x_, make_poisoned(*device_, tokens, problem_.config.hidden_size), &all);
    for (const LinearInput input : problem_.layout.linear_inputs()) {
        RecordingObserver some(*device_);
        decoder.observe_inputs(weights_, x_, input, some);
        const auto end = all.seen.begin() + static_cast<std::ptrdiff_t>(index_of(input) + 1);
        EXPECT_TRUE(some.seen == decltype(some.seen)(all.seen.begin(), end)) << "input " << index_of(input);
    }
}

TEST(DecoderBlock, BackwardNeedsItsActivations) {
    const auto device = make_test_device();
    const BlockProblem problem("llama");
    const BlockWeights weights = upload_block(*device, problem.layout, problem.block);
    DecoderBlock decoder(*device, problem.config, tokens, Passes::forward_only, DType::f32);
    CollectingSink sink(*device, problem.layout);
    const Tensor dy = make_poisoned(*device, tokens, problem.config.hidden_size);
    expect_error(ExitStatus::bug, {"backward passes"}, [&] { decoder.backward(weights, dy, sink); });
}

}  // namespace
}  // namespace espalier
