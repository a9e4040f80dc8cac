#pragma once
/// How the ranks of one communicator bring a block from storage to their devices: each reads some rows of every matrix,
/// so that a block is read as fast as all of them can read together, and the rows are gathered from device to device.

#include "kernels/device.h"
#include "mpi/communicator.h"
#include "src/blocks/weight_partition.h"
#include "src/model/block_weights.h"
#include "src/weights/block_source.h"

#include <cstddef>
#include <functional>
#include <span>

namespace espalier {

/// One rank's part of a block in page-locked memory, in stored types: its rows, slice by slice, then all vectors.
class BlockPart {
  public:
    BlockPart() = default;
    BlockPart(Device& device, const BlockLayout& layout, const BlockStorage& storage, const WeightPartition& partition,
              std::size_t rank);

    /// Calls `visit` with each slice and its rows.
    void for_each_slice(const std::function<void(const RowSlice&, TensorView)>& visit) const;
    std::span<std::byte> vectors() { return bytes_.bytes().subspan(vectors_begin_); }
    std::span<const std::byte> vectors() const { return bytes_.bytes().subspan(vectors_begin_); }

  private:
    std::vector<RowSlice> slices_;
    std::vector<TensorView> rows_;
    std::size_t vectors_begin_ = 0;
    HostBuffer bytes_;
};

class BlockLoader {
  public:
    /// References outlive it.
    BlockLoader(Device& device, const BlockLayout& layout, Communicator& group);

    /// This rank's part of a block. The ranks take turns to verify a block's file, when there is a record of it. May
    /// run in another thread. Throws InputError.
    BlockPart read(const BlockSource& source, std::size_t block) const;
    /// The block on every rank's device, widened where `weights` are wider; refuses values that are not finite (throws
    /// InputError naming tensor and block). Collective.
    void load(const BlockStorage& storage, std::size_t block, const BlockPart& part, BlockWeights& weights) const;

    const WeightPartition& partition() const { return partition_; }

  private:
    void load_vectors(const BlockStorage& storage, std::span<const std::byte> stored, BlockWeights& weights) const;

    Device& device_;
    const BlockLayout& layout_;
    Communicator& group_;
    WeightPartition partition_;
};

}  // namespace espalier
