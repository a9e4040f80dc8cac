#pragma once
/// From the weight gradients of a backward pass to those of what is trained: a leaf of a block's sum.

#include "src/finetune/student_weights.h"
#include "src/finetune/trained_values.h"
#include "src/finetune/update_dropout.h"
#include "src/model/block_half.h"

#include <cstddef>

namespace espalier {

/// With an update s B A of a matrix: dB = s dW A^T and dA = s B^T dW, dW masked where zeros are kept. Without a mask
/// they come from the factors of dW, which then never exists. With dropout dW is that of the dropped inputs.
class GradientPass final : public WeightGradientSink {
  public:
    GradientPass(const TrainingContext& context, const TrainedValues& values, const StudentWeights& student,
                 UpdateDropout& dropout)
        : context_(context), values_(values), student_(student), dropout_(dropout) {}

    /// The gradients of the backward pass that follows go to `leaf` [1, n], all elements of it.
    void begin(const BlockWeights& weights, TensorView leaf);

    bool consume_factors(LinearLayer layer, TensorView x, TensorView dy) override;
    void consume(LinearLayer layer, std::size_t row_begin, TensorView panel) override;
    void finished(LinearLayer layer) override;
    TensorView gain_gradient(BlockVector norm) override;

  private:
    const TrainedLayout& layout() const { return values_.layout(0); }
    TensorView in_leaf(TrainedKind kind, LinearLayer layer) const;
    TensorView value_of(TrainedKind kind, LinearLayer layer) const;
    void low_rank_from_factors(LinearLayer layer, TensorView x, TensorView dy);
    void low_rank_from_gradient(LinearLayer layer);
    void scale(TensorView gradient) const;

    const TrainingContext& context_;
    const TrainedValues& values_;
    const StudentWeights& student_;
    UpdateDropout& dropout_;
    const BlockWeights* weights_ = nullptr;
    TensorView leaf_;
};

}  // namespace espalier
