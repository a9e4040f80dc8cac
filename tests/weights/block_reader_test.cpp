// Reading ahead in a background thread.
#include "src/weights/block_reader.h"

#include "kernels/device.h"
#include "src/base/error.h"
#include "tests/support/expect.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>

namespace espalier {
namespace {

Device& device() {
    static const std::unique_ptr<Device> device = make_cpu_device(1);
    return *device;
}

HostBuffer content_of(std::size_t block) {
    HostBuffer content(device(), 10 + block);
    std::ranges::fill(content.bytes(), static_cast<std::byte>(block));
    return content;
}

void expect_content(const HostBuffer& found, std::size_t block) {
    EXPECT_TRUE(std::ranges::equal(found.bytes(), content_of(block).bytes())) << "block " << block;
}

TEST(BlockReader, GivesEveryBlockOnce) {
    std::atomic<int> reads = 0;
    BlockReader<HostBuffer> reader([&](std::size_t block) {
        ++reads;
        return content_of(block);
    });
    for (std::size_t block = 0; block < 20; ++block) {
        expect_content(reader.take(block), block);
        reader.prefetch(block + 1);
        reader.prefetch(block + 1);  // under way already
    }
    expect_content(reader.take(20), 20);
    EXPECT_EQ(reads, 21);
}

TEST(BlockReader, ReadsAnotherBlockThanThePrefetched) {
    BlockReader<HostBuffer> reader(content_of);
    reader.prefetch(3);
    expect_content(reader.take(7), 7);
    expect_content(reader.take(7), 7);  // a block may be taken again
}

TEST(BlockReader, ExceptionsComeOutOfTake) {
    BlockReader<HostBuffer> reader([](std::size_t block) {
        if (block == 1) throw InputError("block 1 is damaged");
        return content_of(block);
    });
    reader.prefetch(1);
    support::expect_input_error({"block 1 is damaged"}, [&] { static_cast<void>(reader.take(1)); });
    expect_content(reader.take(2), 2);
}

TEST(BlockReader, MayEndWithAReadUnderWay) {
    std::atomic<bool> done = false;
    {
        BlockReader<HostBuffer> reader([&](std::size_t block) {
            done = true;
            return content_of(block);
        });
        reader.prefetch(0);
    }
    EXPECT_TRUE(done);
}

}  // namespace
}  // namespace espalier
