#pragma once
/// Dropout of what low-rank updates are multiplied by (Hu et al. 2021): y = x W^T + d(x) U^T with U = s B A, under the
/// mask or not, where d drops elements of x and scales the others up. The weights of passes are W + U already, so
/// that the term to add is (d(x) - x) U^T.

#include "src/finetune/student_weights.h"
#include "src/finetune/trained_values.h"
#include "src/model/block_half.h"

#include <cstddef>
#include <cstdint>

namespace espalier {

class UpdateDropout final : public ProjectionTerm {
  public:
    /// For passes of up to `rows` rows. References outlive it. Takes no memory when the options have no dropout.
    UpdateDropout(const TrainingContext& context, const TrainedValues& values, const StudentWeights& student,
                  std::size_t rows);

    /// The pass that follows: of the block that `weights` are of; `first_row` numbers its first row among the rows of
    /// all steps.
    void begin(const BlockWeights& weights, std::uint64_t first_row);

    void add(LinearLayer layer, TensorView x, TensorView y) override;
    void add_input_gradient(LinearLayer layer, TensorView dy, TensorView dx) override;
    /// d(x), valid until the next call of any member.
    TensorView dropped(LinearLayer layer, TensorView x);

  private:
    /// d(x) - x: what elements are multiplied by.
    struct Difference {
        DropoutMask mask;
        float kept, dropped;
    };
    DropoutMask mask_of(LinearLayer layer) const;
    Difference difference_of(LinearLayer layer) const;
    bool is_trained(LinearLayer layer) const;
    /// U [out, in] in the type of passes, of an update under the mask.
    TensorView masked_update(LinearLayer layer);

    const TrainingContext& context_;
    const TrainedValues& values_;
    const StudentWeights& student_;
    const BlockWeights* weights_ = nullptr;
    std::uint64_t first_row_ = 0;
    Tensor inputs_;  ///< [rows, in of the widest matrix]
    Tensor narrow_;  ///< [rows, rank], without a mask
    Tensor update_;  ///< of the largest matrix, under a mask, unless the scratch of the weights has the type of passes
};

}  // namespace espalier
