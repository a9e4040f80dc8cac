// Which rank owns which rows of a block.
#include "src/blocks/weight_partition.h"

#include "tests/support/expect.h"
#include "tests/support/test_device.h"
#include "tests/support/tiny_model.h"

#include <gtest/gtest.h>

#include <array>

namespace espalier {
namespace {

using namespace support;

/// Layouts with matrices below, at and above 64 rows.
std::vector<BlockLayout> layouts() {
    std::vector<BlockLayout> all;
    for (const auto& [hidden, inter] : {std::pair<int, int>{16, 24}, {128, 320}, {200, 517}, {64, 64}}) {
        all.emplace_back(parse_tiny_config("mistral", {{"hidden_size", hidden}, {"intermediate_size", inter}}));
    }
    return all;
}

/// In each layer (of input `only`, when named) the slices of all ranks must tile the matrix in order, and every cut
/// must be at a multiple of 64 rows; the other layers have none.
void expect_tiling(const WeightPartition& partition, const BlockLayout& layout, std::size_t ranks,
                   std::optional<LinearInput> only) {
    std::vector<std::size_t> next_row(layout.matrices().size());
    for (std::size_t rank = 0; rank < ranks; ++rank) {
        std::size_t size = 0;
        for (const RowSlice& slice : partition.slices_of(rank)) {
            const MatrixShape& matrix = layout.matrix(slice.layer);
            ASSERT_EQ(slice.row_begin, next_row[index_of(slice.layer)]);
            ASSERT_LT(slice.row_begin, slice.row_end);
            ASSERT_LE(slice.row_end, matrix.rows);
            ASSERT_TRUE(slice.row_end % 64 == 0 || slice.row_end == matrix.rows);
            const PartOffsets& offsets = partition.offsets_in(slice.layer);
            ASSERT_EQ(offsets[rank], slice.row_begin * matrix.columns);
            ASSERT_EQ(offsets[rank + 1], slice.row_end * matrix.columns);
            next_row[index_of(slice.layer)] = slice.row_end;
            size += (slice.row_end - slice.row_begin) * matrix.columns;
        }
        ASSERT_EQ(partition.size_of(rank), size);
    }
    for (const LinearLayer layer : layout.linear_layers()) {
        const bool inside = !only || layout.matrix(layer).input == *only;
        ASSERT_EQ(next_row[index_of(layer)], inside ? layout.matrix(layer).rows : 0U);
        ASSERT_EQ(partition.offsets_in(layer).size(), ranks + 1);
        ASSERT_EQ(partition.offsets_in(layer).back(), inside ? layout.matrix(layer).size() : 0U);
    }
}

TEST(WeightPartition, BalancedCoversEverythingOnceInCutsOf64Rows) {
    for (const BlockLayout& layout : layouts()) {
        for (std::size_t ranks = 1; ranks <= 64; ++ranks) {
            expect_tiling(WeightPartition::balanced(layout, ranks), layout, ranks, {});
        }
    }
}

TEST(WeightPartition, BalancedOverTheLayersOfAnInput) {
    for (const BlockLayout& layout : layouts()) {
        for (const LinearInput input : layout.linear_inputs()) {
            for (const std::size_t ranks : {1U, 2U, 3U, 7U, 16U}) {
                expect_tiling(WeightPartition::balanced(layout, ranks, input), layout, ranks, input);
            }
        }
    }
}

TEST(WeightPartition, BalancedPartsDifferByLittle) {
    // In each of the seven matrices by 64 rows at most.
    const BlockLayout layout(parse_tiny_config("mistral", {{"hidden_size", 512}, {"intermediate_size", 2048}}));
    for (const std::size_t ranks : {2U, 3U, 4U, 8U}) {
        const WeightPartition partition = WeightPartition::balanced(layout, ranks);
        const double fair = static_cast<double>(layout.weights()) / static_cast<double>(ranks);
        for (std::size_t rank = 0; rank < ranks; ++rank) {
            EXPECT_NEAR(static_cast<double>(partition.size_of(rank)), fair, 7 * 64 * 2048 / 2);
        }
    }
}

TEST(WeightPartition, AllOnOne) {
    const BlockLayout layout = layouts()[1];
    for (const std::size_t ranks : {1U, 2U, 5U}) {
        for (std::size_t owner = 0; owner < ranks; ++owner) {
            const WeightPartition partition = WeightPartition::all_on(layout, ranks, owner);
            for (std::size_t rank = 0; rank < ranks; ++rank) {
                EXPECT_EQ(partition.size_of(rank), rank == owner ? layout.weights() : 0U);
                EXPECT_EQ(partition.slices_of(rank).size(), rank == owner ? layout.matrices().size() : 0U);
            }
        }
    }
}

TEST(PartTensor, SlicesLieInOrder) {
    const auto device = make_test_device();
    const BlockLayout layout = layouts()[1];
    const WeightPartition partition = WeightPartition::balanced(layout, 3);
    for (std::size_t rank = 0; rank < 3; ++rank) {
        const PartTensor part(*device, partition, rank, "test");
        const std::byte* next = part.all().data;
        for (const RowSlice& slice : partition.slices_of(rank)) {
            const TensorView view = part.slice(slice, layout.matrix(slice.layer).columns);
            EXPECT_EQ(view.data, next);
            EXPECT_EQ(part.of_layer(slice.layer).data, next);
            EXPECT_EQ(part.of_layer(slice.layer).bytes(), view.bytes());
            EXPECT_EQ(view.rows, slice.row_end - slice.row_begin);
            next += view.bytes();
        }
        EXPECT_EQ(next, part.all().data + part.all().bytes());
    }
    const PartTensor first(*device, partition, 0, "test");
    const RowSlice foreign = partition.slices_of(2).back();
    expect_error(ExitStatus::bug, {"this rank's part"},
                 [&] { static_cast<void>(first.slice(foreign, layout.matrix(foreign.layer).columns)); });
    EXPECT_TRUE(PartTensor().empty());
}

}  // namespace
}  // namespace espalier
