// Reading ahead in a background thread.
#include "src/weights/block_reader.h"

#include "src/base/error.h"
#include "tests/support/expect.h"

#include <gtest/gtest.h>

#include <atomic>

namespace espalier {
namespace {

std::vector<std::byte> content_of(std::size_t block) {
    return std::vector<std::byte>(10 + block, static_cast<std::byte>(block));
}

TEST(BlockReader, GivesEveryBlockOnce) {
    std::atomic<int> reads = 0;
    BlockReader reader([&](std::size_t block) {
        ++reads;
        return content_of(block);
    });
    for (std::size_t block = 0; block < 20; ++block) {
        EXPECT_EQ(reader.take(block), content_of(block));
        reader.prefetch(block + 1);
        reader.prefetch(block + 1);  // under way already
    }
    EXPECT_EQ(reader.take(20), content_of(20));
    EXPECT_EQ(reads, 21);
}

TEST(BlockReader, ReadsAnotherBlockThanThePrefetched) {
    BlockReader reader(content_of);
    reader.prefetch(3);
    EXPECT_EQ(reader.take(7), content_of(7));
    EXPECT_EQ(reader.take(7), content_of(7));  // a block may be taken again
}

TEST(BlockReader, ExceptionsComeOutOfTake) {
    BlockReader reader([](std::size_t block) {
        if (block == 1) throw InputError("block 1 is damaged");
        return content_of(block);
    });
    reader.prefetch(1);
    support::expect_input_error({"block 1 is damaged"}, [&] { static_cast<void>(reader.take(1)); });
    EXPECT_EQ(reader.take(2), content_of(2));
}

TEST(BlockReader, MayEndWithAReadUnderWay) {
    std::atomic<bool> done = false;
    {
        BlockReader reader([&](std::size_t block) {
            done = true;
            return content_of(block);
        });
        reader.prefetch(0);
    }
    EXPECT_TRUE(done);
}

}  // namespace
}  // namespace espalier
