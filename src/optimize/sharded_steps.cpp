#include "src/optimize/sharded_steps.h"

#include <functional>
#include <memory>
#include <optional>
#include <utility>

namespace espalier {

namespace {

/// One leaf a pass in each matrix's ordered sum. With the last pass of this rank, a matrix
/// starts its way to the ranks that own its rows while the backward pass goes on with the next; when that one is on its
/// way, the first is stepped, and its new rows go to all ranks meanwhile. The backward pass is done with a matrix once
/// it hands out its gradient, so the weights may change under it.
class MiniBatchStep final : public WeightGradientSink {
  public:
    /// `step` finishes the sum of a matrix that is on its way, and steps it.
    MiniBatchStep(Device& device, const BlockLayout& layout, const WeightPartition& partition,
                  std::vector<OrderedSum>& sums, std::function<void(LinearLayer)> step)
        : device_(device),
          layout_(layout),
          partition_(partition),
          sums_(sums),
          step_(std::move(step)),
          leaf_(layout.matrices().size()) {}

    void begin_pass(bool last) {
        last_ = last;
        for (const LinearLayer layer : layout_.linear_layers()) {
            const MatrixShape& matrix = layout_.matrix(layer);
            leaf_[index_of(layer)] =
                sums_[index_of(layer)].begin_undefined_leaf().reshaped(matrix.rows, matrix.columns);
        }
    }
    void consume(LinearLayer layer, std::size_t row_begin, TensorView panel) override {
        device_.copy(panel, leaf_[index_of(layer)].row_range(row_begin, row_begin + panel.rows));
    }
    void finished(LinearLayer layer) override {
        sums_[index_of(layer)].end_leaf();
        if (last_) reduce(layer);
    }
    /// All ranks call it for all matrices in the backward pass's order, those without passes too.
    void reduce(LinearLayer layer) {
        sums_[index_of(layer)].start_reduce(partition_.offsets_in(layer));
        if (on_its_way_) step_(*on_its_way_);
        on_its_way_ = layer;
    }
    void finish() {
        if (on_its_way_) step_(*on_its_way_);
        on_its_way_.reset();
    }

  private:
    Device& device_;
    const BlockLayout& layout_;
    const WeightPartition& partition_;
    std::vector<OrderedSum>& sums_;
    std::function<void(LinearLayer)> step_;
    std::vector<TensorView> leaf_;  ///< by matrix
    std::optional<LinearLayer> on_its_way_;
    bool last_ = false;
};

}  // namespace

ShardedSteps::ShardedSteps(const GroupContext& context, std::size_t samples_of_pass, const OptimizerState& state)
    : context_(context),
      samples_of_pass_(samples_of_pass),
      state_(state),
      gradient_(context.device, state.partition(), context.me(), "gradient of a mini-batch") {}

std::vector<OrderedSum>& ShardedSteps::sums_for(const std::vector<std::size_t>& offsets) {
    std::vector<OrderedSum>& sums = sums_[offsets.back()];
    if (!sums.empty()) return sums;
    for (const MatrixShape& matrix : context_.layout.matrices()) {
        sums.emplace_back(context_.device, context_.group, matrix.size(), offsets, "sums of a mini-batch");
    }
    return sums;
}

void ShardedSteps::take(const OptimizerStep& step, const std::vector<std::size_t>& offsets,
                        const BlockTensor* held_mask, const StepPass& pass) {
    const std::size_t mine = offsets[context_.me() + 1] - offsets[context_.me()];
    std::vector<OrderedSum>& sums = sums_for(offsets);
    std::vector<std::unique_ptr<Exchange>> gathers;
    MiniBatchStep sink(context_.device, context_.layout, state_.partition(), sums, [&](LinearLayer layer) {
        step_part(step, layer, sums[index_of(layer)], held_mask);
        gathers.push_back(state_.weights().start_sharing(layer));
    });
    for (std::size_t i = 0; i < mine; ++i) {
        sink.begin_pass(i + 1 == mine);
        pass(i, sink);
    }
    if (mine == 0) {
        // In the order of those that have passes.
        for (const LinearLayer layer : context_.layout.backward_order()) sink.reduce(layer);
    }
    sink.finish();
    for (const auto& gather : gathers) gather->finish();
}

void ShardedSteps::step_part(const OptimizerStep& step, LinearLayer layer, OrderedSum& sum,
                             const BlockTensor* held_mask) {
    const PartOffsets& parts = state_.partition().offsets_in(layer);
    const std::size_t columns = context_.layout.matrix(layer).columns;
    const std::size_t begin = parts[context_.me()], end = parts[context_.me() + 1];
    const RowSlice rows{layer, begin / columns, end / columns};
    if (begin == end) {
        sum.finish_reduce({gradient_.all().data, DType::f32, 1, 0});
        return;
    }
    const TensorView gradient = gradient_.slice(rows, columns);
    sum.finish_reduce(gradient.reshaped(1, gradient.size()));
    state_.step(step, rows, gradient, held_mask);
}

}  // namespace espalier
