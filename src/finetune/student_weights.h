#pragma once
/// The weights that the passes of fine-tuning read, block after block, forth and back: those of the student with what
/// is trained on its place. They lie on every device whole, or each rank holds a share of every block and the block is
/// gathered while the one before is computed.

#include "src/blocks/weight_partition.h"
#include "src/finetune/trained_values.h"
#include "src/finetune/training_context.h"
#include "src/model/block_weights.h"

#include <array>
#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

namespace espalier {

class StudentWeights {
  public:
    /// Reads the student, and starts `values` with it. References outlive it. Collective, as all members are.
    StudentWeights(const TrainingContext& context, TrainedValues& values);

    /// The block's weights, until the next call. `then`: another block that will be asked for next, if it is known,
    /// with the values as they are.
    const BlockWeights& take(std::size_t block, std::optional<std::size_t> then);
    /// The values have changed.
    void refresh();
    /// float32 scratch of the largest matrix.
    TensorView scratch(std::size_t rows, std::size_t columns) const;

  private:
    /// A block on its way from all ranks' shares, or there.
    struct Slot {
        std::unique_ptr<BlockWeights> weights;
        std::optional<std::size_t> block;
        bool is_there = false;
        std::vector<std::unique_ptr<Exchange>> exchanges;
    };
    /// Completes what is on its way.
    void finish(Slot& slot);
    bool resident() const { return context_.weights == WeightPlace::resident; }
    bool is_in_shares(LinearLayer layer) const;
    void start_gathering(std::size_t block, Slot& slot);
    /// This rank's share of the next block.
    void keep(const BlockWeights& weights);

    const TrainingContext& context_;
    TrainedValues& values_;
    WeightPartition partition_;
    std::vector<std::unique_ptr<BlockWeights>> blocks_;  ///< when they are resident
    std::vector<Tensor> shares_;                         ///< by block otherwise: this rank's rows, layer by layer
    std::vector<std::vector<Tensor>> vectors_;           ///< by block, with shares
    std::array<Slot, 2> slots_;
    std::size_t next_slot_ = 0;
    Tensor scratch_;
};

}  // namespace espalier
