#include "mpi/ordered_sum.h"

#include <utility>

namespace espalier {

namespace {

bool are_siblings(const TreeNode& left, const TreeNode& right) {
    const std::size_t span = std::size_t{1} << left.level;
    return left.level == right.level && left.first_leaf % (2 * span) == 0 && right.first_leaf == left.first_leaf + span;
}

TensorView slice(TensorView vector, std::size_t begin, std::size_t end) {
    return {vector.data + begin * bytes_of(vector.dtype), vector.dtype, 1, end - begin};
}

}  // namespace

std::vector<TreeNode> nodes_of_leaves(std::size_t begin, std::size_t end) {
    std::vector<TreeNode> nodes;
    for (std::size_t leaf = begin; leaf < end; ++leaf) {
        nodes.push_back({0, leaf});
        while (nodes.size() > 1 && are_siblings(nodes[nodes.size() - 2], nodes.back())) {
            nodes.pop_back();
            ++nodes.back().level;
        }
    }
    return nodes;
}

OrderedSum::OrderedSum(Device& device, Communicator& group, std::size_t length, std::vector<std::size_t> leaf_offsets,
                       const char* name)
    : device_(device),
      group_(group),
      length_(length),
      leaf_offsets_(std::move(leaf_offsets)),
      name_(name),
      next_leaf_(leaf_offsets_[static_cast<std::size_t>(group.rank())]) {}

Tensor OrderedSum::take_buffer() {
    if (spare_.empty()) {
        ++kept_buffers_;
        return device_.make_tensor(DType::f32, 1, length_, name_);
    }
    Tensor buffer = std::move(spare_.back());
    spare_.pop_back();
    return buffer;
}

void OrderedSum::recycle(Tensor buffer) {
    // What came from another rank may be as long.
    if (buffer.view().size() == length_ && spare_.size() < kept_buffers_) spare_.push_back(std::move(buffer));
}

TensorView OrderedSum::begin_leaf() {
    const TensorView leaf = begin_undefined_leaf();
    device_.fill_zero(leaf);
    return leaf;
}

TensorView OrderedSum::begin_undefined_leaf() {
    leaf_ = take_buffer();
    return leaf_;
}

void OrderedSum::end_leaf() {
    push(partials_, {0, next_leaf_++}, std::move(leaf_));
}

void OrderedSum::push(std::vector<Partial>& stack, TreeNode node, Tensor sum) {
    stack.push_back({node, std::move(sum)});
    while (stack.size() > 1 && are_siblings(stack[stack.size() - 2].node, stack.back().node)) {
        Partial right = std::move(stack.back());
        stack.pop_back();
        device_.add(right.sum, stack.back().sum);
        ++stack.back().node.level;
        recycle(std::move(right.sum));
    }
}

void OrderedSum::start_reduce(const PartOffsets& parts) {
    const auto me = static_cast<std::size_t>(group_.rank());
    require(next_leaf_ == leaf_offsets_[me + 1], "all leaves of this rank ended before start_reduce");
    parts_ = parts;
    received_.clear();
    received_.resize(static_cast<std::size_t>(group_.size()));
    std::vector<Message> sends, receives;
    for (std::size_t r = 0; r < received_.size(); ++r) {
        if (r == me) continue;
        for (const Partial& partial : partials_) {
            const TensorView part = slice(partial.sum, parts[r], parts[r + 1]);
            sends.push_back({static_cast<int>(r), part.data, part.bytes()});
        }
        for (std::size_t n = 0; n < nodes_of_leaves(leaf_offsets_[r], leaf_offsets_[r + 1]).size(); ++n) {
            Tensor& buffer = received_[r].emplace_back(
                device_.make_tensor(DType::f32, 1, parts[me + 1] - parts[me], "sums of other ranks"));
            receives.push_back({static_cast<int>(r), buffer.view().data, buffer.view().bytes()});
        }
    }
    exchange_ = group_.start_exchange(sends, receives);
}

void OrderedSum::finish_reduce(TensorView part) {
    const auto me = static_cast<std::size_t>(group_.rank());
    exchange_->finish();
    exchange_.reset();
    std::vector<Partial> stack;
    for (std::size_t r = 0; r < received_.size(); ++r) {
        const std::vector<TreeNode> nodes = nodes_of_leaves(leaf_offsets_[r], leaf_offsets_[r + 1]);
        for (std::size_t n = 0; n < nodes.size(); ++n) {
            if (r != me) {
                push(stack, nodes[n], std::move(received_[r][n]));
                continue;
            }
            if (part.size() == length_) {
                push(stack, nodes[n], std::move(partials_[n].sum));
                continue;
            }
            Tensor own = device_.make_tensor(DType::f32, 1, part.size(), "sums of other ranks");
            device_.copy(slice(partials_[n].sum, parts_[me], parts_[me + 1]), own);
            push(stack, nodes[n], std::move(own));
        }
    }
    // The leaves' count need not be a power of two: what is left is added from the smallest node up.
    while (stack.size() > 1) {
        Partial right = std::move(stack.back());
        stack.pop_back();
        device_.add(right.sum, stack.back().sum);
        recycle(std::move(right.sum));
    }
    if (stack.empty()) {
        device_.fill_zero(part);
    } else {
        device_.copy(stack.back().sum, part);
        recycle(std::move(stack.back().sum));
    }
    for (Partial& partial : partials_) recycle(std::move(partial.sum));
    partials_.clear();
    received_.clear();
    next_leaf_ = leaf_offsets_[me];
}

}  // namespace espalier
