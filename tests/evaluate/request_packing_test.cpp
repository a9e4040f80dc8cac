// Requests in passes: what is shared, what is cut, and in which order.
#include "src/evaluate/request_packing.h"

#include "tests/support/expect.h"
#include "tests/support/requests.h"
#include "tests/support/tiny_model.h"

#include <gtest/gtest.h>

namespace espalier {

bool operator==(const RowSegment& a, const RowSegment& b) {
    return a.rows == b.rows && a.prefix_begin == b.prefix_begin && a.prefix_rows == b.prefix_rows;
}

namespace {

using namespace support;
using Ids = std::vector<std::int32_t>;

class RequestPackingTest : public testing::Test {
  protected:
    RequestTable requests_;
    ModelConfig config_ = ModelConfig::parse(
        make_tiny_model("llama", DType::f32, 1, {{"max_position_embeddings", 16}}).config.dump(), "config.json");

    std::vector<PackedSequences> only_part(RequestPacking packing) {
        EXPECT_EQ(packing.parts.size(), 1U);
        return std::move(packing.parts.front());
    }
};

TEST_F(RequestPackingTest, TheLastTokenIsPredictedButNotRead) {
    add_request(requests_, {1, 2, 3}, {4, 5});
    const auto passes = only_part(pack_requests(requests_, config_));
    ASSERT_EQ(passes.size(), 1U);
    EXPECT_EQ(passes[0].ids, (Ids{1, 2, 3, 4}));
    EXPECT_EQ(passes[0].segments, (std::vector<RowSegment>{{4}}));
    EXPECT_EQ(passes[0].rows, (std::vector<std::uint32_t>{2, 3}));
    EXPECT_EQ(passes[0].targets, (Ids{4, 5}));
    EXPECT_EQ(passes[0].continuations, (std::vector<std::size_t>{2}));
}

TEST_F(RequestPackingTest, NeighboursShareTheirContext) {
    add_request(requests_, {1, 2, 3}, {4, 5});
    add_request(requests_, {1, 2, 3}, {6});
    add_request(requests_, {1, 2, 3}, {7, 8, 9});
    const auto passes = only_part(pack_requests(requests_, config_));
    ASSERT_EQ(passes.size(), 1U);
    EXPECT_EQ(passes[0].ids, (Ids{1, 2, 3, 4, 7, 8}));
    EXPECT_EQ(passes[0].segments, (std::vector<RowSegment>{{3}, {1, 0, 3}, {2, 0, 3}}));
    EXPECT_EQ(passes[0].rows, (std::vector<std::uint32_t>{2, 3, 2, 2, 4, 5}));
    EXPECT_EQ(passes[0].targets, (Ids{4, 5, 6, 7, 8, 9}));
    EXPECT_EQ(passes[0].continuations, (std::vector<std::size_t>{2, 1, 3}));
    EXPECT_EQ(shape_of(passes).tokens, 5U);
    EXPECT_TRUE(shape_of(passes).with_prefixes);
}

TEST_F(RequestPackingTest, FromTheShortestToTheLongest) {
    add_request(requests_, Ids(9, 1), {1});
    add_request(requests_, Ids(4, 2), {1});
    add_request(requests_, Ids(6, 3), {1});
    add_request(requests_, Ids(4, 4), {1});
    const RequestPacking packing = pack_requests(requests_, config_, {10});
    EXPECT_EQ(packing.order, (std::vector<std::size_t>{1, 3, 2, 0}));
    const auto passes = only_part(packing);
    ASSERT_EQ(passes.size(), 3U);
    EXPECT_EQ(passes[0].ids, (Ids{2, 2, 2, 2, 4, 4, 4, 4}));
    EXPECT_EQ(passes[0].segments, (std::vector<RowSegment>{{4}, {4}}));
    EXPECT_EQ(passes[0].rows, (std::vector<std::uint32_t>{3, 7}));
}

TEST_F(RequestPackingTest, LargePassesLieInAPartOfTheirOwn) {
    add_request(requests_, Ids(12, 1), {1});
    add_request(requests_, Ids(12, 2), {1});
    add_request(requests_, Ids(2, 3), {1});
    const RequestPacking packing = pack_requests(requests_, config_, {8});
    EXPECT_EQ(packing.order, (std::vector<std::size_t>{2, 0, 1}));
    ASSERT_EQ(packing.parts.size(), 2U);
    EXPECT_EQ(shape_of(packing.parts[0]).rows, 2U);
    EXPECT_EQ(shape_of(packing.parts[1]).rows, 12U);
    EXPECT_EQ(packing.parts[1].size(), 2U);
}

TEST_F(RequestPackingTest, OneContextOfManyIsComputedAgain) {
    for (int i = 0; i < 10; ++i) add_request(requests_, {1}, {2, 3, 4});
    const auto passes = only_part(pack_requests(requests_, config_, {8}));
    EXPECT_EQ(passes.size(), 5U);
    EXPECT_EQ(shape_of(passes).rows, 5U) << "a context and two tokens each of two, which are six predictions";
    // One that fills a pass alone is shared all the same.
    requests_ = {};
    for (int i = 0; i < 4; ++i) add_request(requests_, Ids(10, 1), {2, 3});
    EXPECT_EQ(shape_of(only_part(pack_requests(requests_, config_, {8}))).rows, 14U);
}

TEST_F(RequestPackingTest, PartsHoldSoManyRowsOnly) {
    for (std::int32_t i = 0; i < 10; ++i) add_request(requests_, {i, i, i, i}, {1});
    const RequestPacking whole = pack_requests(requests_, config_, {8}),
                         parts = pack_requests(requests_, config_, {8, 16});
    EXPECT_EQ(whole.parts.size(), 1U);
    ASSERT_EQ(parts.parts.size(), 3U);
    EXPECT_EQ(parts.order, whole.order);
    std::size_t pass = 0;
    for (const auto& part : parts.parts) {
        for (const PackedSequences& one : part) EXPECT_EQ(one.ids, whole.parts.front()[pass++].ids);
    }
    EXPECT_EQ(pass, 5U);
}

TEST_F(RequestPackingTest, SlidingWindowsAreTheLongestSequences) {
    for (BlockSpecification& block : config_.blocks) block.window = 5;
    add_request(requests_, Ids(6, 1), {2});
    const RequestPacking packing = pack_requests(requests_, config_);
    EXPECT_EQ(packing.cut, 1U);
    EXPECT_EQ(shape_of(packing.parts.front()).tokens, 5U);
}

TEST_F(RequestPackingTest, LongContextsLoseTheirBeginning) {
    Ids context;
    for (std::int32_t i = 0; i < 20; ++i) context.push_back(i);
    add_request(requests_, context, {30, 31, 32});
    add_request(requests_, context, {33});
    add_request(requests_, context, {34});
    const RequestPacking packing = pack_requests(requests_, config_, {64});
    EXPECT_EQ(packing.cut, 3U);
    EXPECT_EQ(packing.order, (std::vector<std::size_t>{0, 1, 2}));
    const auto passes = only_part(packing);
    ASSERT_EQ(passes.size(), 1U);
    // As many as the model takes, up to the last token but one. The first loses more than the others.
    EXPECT_EQ(passes[0].segments, (std::vector<RowSegment>{{16}, {16}}));
    EXPECT_EQ(passes[0].continuations, (std::vector<std::size_t>{3, 1, 1}));
    EXPECT_EQ(passes[0].ids[0], 6);
    EXPECT_EQ(passes[0].ids[15], 31);
    EXPECT_EQ(passes[0].ids[16], 4);
}

TEST_F(RequestPackingTest, RefusesContinuationsThatTheModelCannotTake) {
    add_request(requests_, {1}, {1});
    add_request(requests_, {1}, Ids(16, 2));
    EXPECT_EQ(pack_requests(requests_, config_).cut, 0U);
    add_request(requests_, {1}, Ids(17, 2));
    expect_input_error({"request 2", "17 tokens", "takes 16"}, [&] { pack_requests(requests_, config_); });
}

TEST_F(RequestPackingTest, LongropeKeepsShortAndLongSequencesApart) {
    config_.max_positions = 32;
    auto rope = std::make_shared<RopeConfig>(*config_.blocks.front().rope);
    rope->scaling = RopeScaling::longrope;
    rope->original_max_positions = 8;
    for (BlockSpecification& block : config_.blocks) block.rope = rope;
    add_request(requests_, Ids(10, 1), {1, 2});
    add_request(requests_, Ids(10, 1), {3, 4});
    add_request(requests_, Ids(7, 2), {1, 2});     // 8 rows: short
    add_request(requests_, Ids(7, 2), {1, 2, 3});  // 9: long, though its context alone is short
    add_request(requests_, Ids(7, 2), {1, 2, 3, 4});
    const RequestPacking packing = pack_requests(requests_, config_, {64});
    EXPECT_EQ(packing.order, (std::vector<std::size_t>{2, 3, 4, 0, 1}));
    ASSERT_EQ(packing.parts.size(), 2U);
    EXPECT_EQ(packing.parts[0].front().segments, (std::vector<RowSegment>{{8}}));
    EXPECT_EQ(packing.parts[1].front().segments, (std::vector<RowSegment>{{9}, {10}, {10}, {1, 19, 10}, {1, 19, 10}}));
}

}  // namespace
}  // namespace espalier
