// Sums whose order is that of a fixed tree: bits do not depend on which rank holds which leaf.
#include "mpi/ordered_sum.h"

#include "mpi/tensor_communicator.h"
#include "mpi/topology.h"
#include "tests/support/random.h"
#include "tests/support/ranks.h"
#include "tests/support/test_device.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace espalier {
namespace {

using support::Random;
using support::world;

/// Leaf `leaf` of a test: values whose sum depends on the order, since their sizes differ by far.
std::vector<float> leaf_values(std::uint64_t seed, std::size_t leaf, std::size_t length) {
    Random random(seed * 1000 + leaf);
    std::vector<float> values(length);
    for (float& value : values) value = static_cast<float>(random.normal() * std::pow(2.0, random.uniform(-12, 12)));
    return values;
}

/// The sum over leaves [begin, begin + count) as the header draws it: the largest power of two of leaves on the left
/// is a perfect tree, the rest is added to it. Written recursively, unlike the carrying stack under test.
float tree_sum(const std::vector<std::vector<float>>& leaves, std::size_t element, std::size_t begin,
               std::size_t count) {
    if (count == 1) return leaves[begin][element];
    std::size_t left = 1;
    while (2 * left < count) left *= 2;
    const float right_sum = tree_sum(leaves, element, begin + left, count - left);
    return tree_sum(leaves, element, begin, left) + right_sum;
}

std::vector<float> serial_sum(const std::vector<std::vector<float>>& leaves, std::size_t length) {
    std::vector<float> sum(length, 0.0F);
    for (std::size_t i = 0; i < length && !leaves.empty(); ++i) sum[i] = tree_sum(leaves, i, 0, leaves.size());
    return sum;
}

/// Every rank's part of one reduction of `sum`, gathered into the whole vector.
std::vector<float> reduce(OrderedSum& sum, Device& device, const std::vector<std::vector<float>>& leaves,
                          const std::vector<std::size_t>& leaf_offsets, const PartOffsets& parts, std::size_t length) {
    const auto me = static_cast<std::size_t>(world().rank());
    for (std::size_t leaf = leaf_offsets[me]; leaf < leaf_offsets[me + 1]; ++leaf) {
        const TensorView accumulator = sum.begin_leaf();
        device.add(support::upload(device, 1, length, leaves[leaf]), accumulator);
        sum.end_leaf();
    }
    sum.start_reduce(parts);
    const Tensor part = support::make_poisoned(device, 1, parts[me + 1] - parts[me]);
    sum.finish_reduce(part);
    std::vector<float> all(length);
    device.copy_to_host(part, all.data() + parts[me]);
    world().all_gather(std::span<float>(all), parts);
    return all;
}

std::vector<std::size_t> even_offsets(std::size_t count) {
    const auto ranks = static_cast<std::size_t>(world().size());
    std::vector<std::size_t> offsets = {0};
    for (std::size_t r = 0; r < ranks; ++r) offsets.push_back(part_of(count, ranks, r).end);
    return offsets;
}

/// Ascending offsets 0 … count with random, often empty, parts.
std::vector<std::size_t> random_offsets(Random& random, std::size_t count) {
    std::vector<std::size_t> offsets(static_cast<std::size_t>(world().size()) + 1, 0);
    for (std::size_t i = 1; i < offsets.size(); ++i) offsets[i] = random.below(count + 1);
    offsets.back() = count;
    std::sort(offsets.begin(), offsets.end());
    return offsets;
}

void expect_tree_sum(std::uint64_t seed, std::size_t length, const std::vector<std::size_t>& leaf_offsets,
                     const PartOffsets& parts) {
    const auto device = support::make_test_device(1);
    const TensorCommunicator tensors(world(), *device);
    OrderedSum sum(*device, tensors.get(), length, leaf_offsets, "test");
    for (std::uint64_t repetition = 0; repetition < 2; ++repetition) {  // the object takes leaves again
        std::vector<std::vector<float>> leaves;
        for (std::size_t leaf = 0; leaf < leaf_offsets.back(); ++leaf) {
            leaves.push_back(leaf_values(2 * seed + repetition, leaf, length));
        }
        EXPECT_EQ(support::bits_of(reduce(sum, *device, leaves, leaf_offsets, parts, length)),
                  support::bits_of(serial_sum(leaves, length)))
            << "seed " << seed << ", " << leaf_offsets.back() << " leaves, repetition " << repetition;
    }
}

TEST(NodesOfLeaves, CoverTheirLeavesWithTheLargestTreeNodes) {
    EXPECT_EQ(nodes_of_leaves(0, 3), (std::vector<TreeNode>{{1, 0}, {0, 2}}));
    EXPECT_EQ(nodes_of_leaves(3, 5), (std::vector<TreeNode>{{0, 3}, {0, 4}}));
    EXPECT_EQ(nodes_of_leaves(0, 8), (std::vector<TreeNode>{{3, 0}}));
    EXPECT_TRUE(nodes_of_leaves(4, 4).empty());
    for (std::size_t begin = 0; begin < 40; ++begin) {
        for (std::size_t end = begin; end < 80; ++end) {
            std::size_t next = begin;
            const std::vector<TreeNode> nodes = nodes_of_leaves(begin, end);
            for (std::size_t i = 0; i < nodes.size(); ++i) {
                const std::size_t span = std::size_t{1} << nodes[i].level;
                ASSERT_EQ(nodes[i].first_leaf, next);
                ASSERT_EQ(next % span, 0U);
                next += span;
                // No parent of a node lies inside the range as well.
                const std::size_t parent = nodes[i].first_leaf / (2 * span) * (2 * span);
                ASSERT_FALSE(parent >= begin && parent + 2 * span <= end) << begin << " " << end;
            }
            ASSERT_EQ(next, end);
        }
    }
}

TEST(OrderedSumOrder, TestDataDependOnTheOrder) {
    std::vector<std::vector<float>> leaves;
    for (std::size_t leaf = 0; leaf < 8; ++leaf) leaves.push_back(leaf_values(1, leaf, 200));
    std::size_t different = 0;
    for (std::size_t i = 0; i < 200; ++i) {
        float left_to_right = leaves[0][i];
        for (std::size_t leaf = 1; leaf < 8; ++leaf) left_to_right += leaves[leaf][i];
        different += left_to_right != tree_sum(leaves, i, 0, 8) ? 1U : 0U;
    }
    EXPECT_GT(different, 20U);
}

TEST(OrderedSum, EqualsTheSerialTreeForEvenLeaves) {
    for (const std::size_t leaves : {1U, 2U, 3U, 5U, 8U, 13U, 16U, 31U, 33U}) {
        expect_tree_sum(leaves, 101, even_offsets(leaves), even_offsets(101));
    }
}

TEST(OrderedSum, EqualsTheSerialTreeForAnyLeavesAndParts) {
    Random random(7);  // the same on every rank
    for (std::uint64_t seed = 100; seed < 130; ++seed) {
        const std::size_t leaves = 1 + random.below(20), length = 1 + random.below(60);
        const auto leaf_offsets = random_offsets(random, leaves);
        const auto parts = random_offsets(random, length);
        expect_tree_sum(seed, length, leaf_offsets, parts);
    }
}

TEST(OrderedSum, AllLeavesOnOneRank) {
    for (int holder = 0; holder < world().size(); ++holder) {
        std::vector<std::size_t> offsets(static_cast<std::size_t>(world().size()) + 1, 0);
        for (std::size_t r = static_cast<std::size_t>(holder) + 1; r < offsets.size(); ++r) offsets[r] = 11;
        expect_tree_sum(200 + static_cast<std::uint64_t>(holder), 30, offsets, even_offsets(30));
    }
}

TEST(OrderedSum, WholeVectorToOneRank) {
    for (int owner = 0; owner < world().size(); ++owner) {
        PartOffsets parts(static_cast<std::size_t>(world().size()) + 1, 0);
        for (std::size_t r = static_cast<std::size_t>(owner) + 1; r < parts.size(); ++r) parts[r] = 40;
        expect_tree_sum(300 + static_cast<std::uint64_t>(owner), 40, even_offsets(9), parts);
    }
}

TEST(OrderedSum, WithoutLeavesIsZero) {
    const auto device = support::make_test_device(1);
    const auto leaf_offsets = even_offsets(0);
    const TensorCommunicator tensors(world(), *device);
    OrderedSum sum(*device, tensors.get(), 10, leaf_offsets, "test");
    EXPECT_EQ(reduce(sum, *device, {}, leaf_offsets, even_offsets(10), 10), std::vector<float>(10, 0.0F));
}

TEST(OrderedSum, IsExactForExactlySummableValues) {
    const auto device = support::make_test_device(1);
    constexpr std::size_t length = 5000, count = 23;
    std::vector<std::vector<float>> leaves(count, std::vector<float>(length));
    std::vector<float> total(length, 0.0F);
    for (std::size_t leaf = 0; leaf < count; ++leaf) {
        for (std::size_t i = 0; i < length; ++i) {
            leaves[leaf][i] = static_cast<float>((leaf * 31 + i * 7) % 1024);
            total[i] += leaves[leaf][i];
        }
    }
    const TensorCommunicator tensors(world(), *device);
    OrderedSum sum(*device, tensors.get(), length, even_offsets(count), "test");
    EXPECT_EQ(reduce(sum, *device, leaves, even_offsets(count), even_offsets(length), length), total);
}

TEST(OrderedSum, BuffersAreReusedFromReductionToReduction) {
    const auto device = support::make_test_device(1);
    const auto leaf_offsets = even_offsets(16);
    const TensorCommunicator tensors(world(), *device);
    OrderedSum sum(*device, tensors.get(), 1000, leaf_offsets, "test");
    const std::vector<std::vector<float>> leaves(16, std::vector<float>(1000, 1.0F));
    reduce(sum, *device, leaves, leaf_offsets, even_offsets(1000), 1000);
    const std::size_t after_one = device->memory().allocated();
    for (int i = 0; i < 5; ++i) reduce(sum, *device, leaves, leaf_offsets, even_offsets(1000), 1000);
    EXPECT_LE(device->memory().allocated(), after_one);
}

}  // namespace
}  // namespace espalier
