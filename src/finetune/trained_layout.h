#pragma once
/// The one table of what is trained of a block, or of the end of the model: one vector of float32 values, in which
/// every trained tensor has its place. Values, gradients, moments, files: all are that vector, or a rank's part of it.

#include "mpi/ordered_sum.h"
#include "src/finetune/finetune_options.h"
#include "src/model/block_layout.h"

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace espalier {

/// A [rank, in] and B [out, rank] of an update of low rank, a whole matrix, a norm's gain.
enum class TrainedKind { lora_a, lora_b, weight, gain };

struct TrainedTensor {
    std::string name;  ///< in the block: "self_attn.q_proj.lora_A.weight", "input_layernorm.weight"
    TrainedKind kind{};
    std::size_t rows = 0, columns = 0;
    std::size_t offset = 0;                  ///< of its first value
    LinearLayer layer{};                     ///< of all but gains
    std::optional<BlockVector> vector = {};  ///< of a gain in a block; none: the model's final norm

    std::size_t size() const { return rows * columns; }
};

class TrainedLayout {
  public:
    /// Of every block.
    static TrainedLayout of_block(const BlockLayout& layout, const FinetuneOptions& options);
    /// Of the end of the model: its final norm, or nothing.
    static TrainedLayout of_end(const BlockLayout& layout, const FinetuneOptions& options, std::size_t hidden_size);

    const std::vector<TrainedTensor>& tensors() const { return tensors_; }
    std::size_t size() const { return size_; }
    /// The tensor of that kind of a matrix, or of a gain of a norm; null when it is not trained.
    const TrainedTensor* find(TrainedKind kind, LinearLayer layer) const;
    const TrainedTensor* find(BlockVector norm) const;

    /// Values whose sum of squares is added up by itself: whatever the number of ranks, a sum has the same order.
    std::size_t chunk() const { return chunk_; }
    /// One part for each rank, cut at multiples of the chunk.
    PartOffsets parts(std::size_t ranks) const;
    /// The same, as far as a tensor is concerned: elements of it, one entry more than ranks.
    static PartOffsets parts_in(const TrainedTensor& tensor, const PartOffsets& parts);

  private:
    void add(TrainedTensor tensor);
    void finish();

    std::vector<TrainedTensor> tensors_;
    std::size_t size_ = 0, chunk_ = 1;
};

/// The tensor's values in a vector of the layout.
TensorView values_of(const TrainedTensor& tensor, TensorView vector);

}  // namespace espalier
