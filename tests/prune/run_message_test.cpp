// What ranks tell rank 0 arrives as it was said.
#include "src/prune/run_message.h"

#include <gtest/gtest.h>

#include <limits>

namespace espalier {
namespace {

template <typename Message>
Message there_and_back(const Message& message) {
    return std::get<Message>(message_from_text(text_of(message)));
}

TEST(RunMessage, AWrittenBlock) {
    WrittenBlock written;
    written.block = 42;
    written.record.file = {"blocks/00042.h5", std::uint64_t{1} << 40, "00ff"};
    written.record.metrics = {{"index", 42}, {"sentences", {"note: a", "warning: ü"}}, {"error_final", 1e-9}};
    const WrittenBlock found = there_and_back(written);
    EXPECT_EQ(found.block, 42U);
    EXPECT_EQ(found.record.file.file, written.record.file.file);
    EXPECT_EQ(found.record.file.bytes, written.record.file.bytes);
    EXPECT_EQ(found.record.file.xxh3, written.record.file.xxh3);
    EXPECT_EQ(found.record.metrics, written.record.metrics);
}

TEST(RunMessage, ALearningRateWithCandidatesThatDiverged) {
    const LearningRateChoice choice{3e-4, {{1e-4, 0.25}, {3e-4, 0.125}, {1e-3}}};
    const LearningRateChoice found = there_and_back(choice);
    EXPECT_EQ(found.learning_rate, 3e-4);
    ASSERT_EQ(found.candidates.size(), 3U);
    EXPECT_EQ(found.candidates[1].held_out_error, 0.125);
    EXPECT_EQ(found.candidates[2].held_out_error, std::numeric_limits<double>::infinity());
}

TEST(RunMessage, StoppedAndArrived) {
    EXPECT_TRUE(std::holds_alternative<RankStopped>(message_from_text(text_of(RankStopped{}))));
    EXPECT_TRUE(there_and_back(RankArrived{true}).stops);
    EXPECT_FALSE(there_and_back(RankArrived{false}).stops);
}

}  // namespace
}  // namespace espalier
