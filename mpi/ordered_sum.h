#pragma once
/// Sums that decide masks and weights, in an order that does not depend on the number of ranks: a fixed binary tree
/// over leaves 0 … n-1 (shards, or the samples of a mini-batch). A rank adds its own leaves by carrying partial sums
/// like a binary counter; across ranks every part of the vector is summed by the rank that owns it.
///
///   leaves   0   1   2   3   4          rank 0 holds leaves 0-2, rank 1 holds leaves 3-4
///             \ /     \ /    |          rank 0 sends the nodes (0 1) and (2), rank 1 the nodes (3) and (4),
///             (0 1)  (2 3)   |          the owner of a part adds (2)+(3), then (0 1)+(2 3), then the rest.
///                \   /       |
///              (0 1 2 3)     |
///                    \      /
///                     total

#include "kernels/device.h"
#include "mpi/communicator.h"

#include <cstddef>
#include <memory>
#include <vector>

namespace espalier {

/// The vector of all data ranks cut into one contiguous part a rank: part r is [offsets[r], offsets[r + 1]).
using PartOffsets = std::vector<std::size_t>;

/// Nodes of the tree that a rank holds: a node of level L starts at a multiple of 2^L and covers 2^L leaves.
struct TreeNode {
    std::size_t level = 0;
    std::size_t first_leaf = 0;
    bool operator==(const TreeNode&) const = default;
};

/// The nodes a rank is left with after adding leaves [begin, end) in order, merging only siblings.
std::vector<TreeNode> nodes_of_leaves(std::size_t begin, std::size_t end);

/// One vector's sum over leaves. Begin and end every leaf of this rank in ascending order, then start_reduce on every
/// rank.
class OrderedSum {
  public:
    /// `length` floats, whose memory is named `name`; the leaves of data rank r are [leaf_offsets[r], leaf_offsets[r +
    /// 1]).
    OrderedSum(Device& device, Communicator& group, std::size_t length, std::vector<std::size_t> leaf_offsets,
               const char* name);

    /// The accumulator of the next leaf of this rank, zeroed, [1, length]. Valid until end_leaf.
    TensorView begin_leaf();
    /// The same for a caller that writes every element: not zeroed.
    TensorView begin_undefined_leaf();
    void end_leaf();

    /// Gives memory back that only further leaves would need.
    void release_spare() {
        spare_.clear();
        kept_buffers_ = 0;
    }
    /// Starts sending other ranks their parts, once all leaves of this rank are ended. Collective, does not wait.
    void start_reduce(const PartOffsets& parts);
    /// Waits and writes this rank's part of the total to `part` [1, parts[rank + 1] - parts[rank]]. The object is then
    /// empty and takes leaves again.
    void finish_reduce(TensorView part);

  private:
    struct Partial {
        TreeNode node;
        Tensor sum;
    };
    /// Adds a node to a stack of partials, merging siblings as a binary counter carries.
    void push(std::vector<Partial>& stack, TreeNode node, Tensor sum);
    Tensor take_buffer();
    void recycle(Tensor buffer);

    Device& device_;
    Communicator& group_;
    std::size_t length_;
    std::vector<std::size_t> leaf_offsets_;
    const char* name_;
    std::size_t next_leaf_;
    Tensor leaf_;
    std::vector<Partial> partials_;
    std::vector<Tensor> spare_;     ///< buffers of `length_`, reused from reduction to reduction
    std::size_t kept_buffers_ = 0;  ///< made for leaves: so many are kept at most
    PartOffsets parts_;
    std::vector<std::vector<Tensor>> received_;  ///< by rank, by node
    std::unique_ptr<Exchange> exchange_;
};

}  // namespace espalier
