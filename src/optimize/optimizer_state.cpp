#include "src/optimize/optimizer_state.h"

namespace espalier {

OptimizerState::OptimizerState(const GroupContext& context, const WeightPartition& partition, const OptimizerRule& rule,
                               OptimizedWeights& weights)
    : device_(context.device), layout_(context.layout), partition_(partition), weights_(weights) {
    for (std::size_t m = 0; m < moments_of(rule); ++m)
        moments_.emplace_back(context.device, partition, context.me(), "optimiser's moments");
}

void OptimizerState::reset() {
    for (const PartTensor& moment : moments_) device_.fill_zero(moment.all());
    weights_.load();
}

void OptimizerState::step(const OptimizerStep& step, const RowSlice& rows, TensorView gradient,
                          const BlockTensor* held_mask) const {
    const std::size_t columns = layout_.matrix(rows.layer).columns;
    OptimizedRows stepped;
    stepped.gradient = gradient;
    if (held_mask != nullptr) stepped.mask = held_mask->matrix(rows.layer).row_range(rows.row_begin, rows.row_end);
    for (std::size_t m = 0; m < moments_.size(); ++m) stepped.moments[m] = moments_[m].slice(rows, columns);
    stepped.weight = weights_.master(rows);
    stepped.rounded = weights_.rounded(rows);
    OptimizerStep of_matrix = step;
    if (!relative_rates_.empty()) {
        of_matrix.learning_rate =
            static_cast<float>(static_cast<double>(step.learning_rate) * relative_rates_[index_of(rows.layer)]);
    }
    device_.optimizer_step(of_matrix, stepped);
}

}  // namespace espalier
