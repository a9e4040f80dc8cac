// Which samples are held out.
#include "src/samples/sample_split.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace espalier {
namespace {

TEST(SampleSplit, AnEighthAndAtLeastOne) {
    for (std::size_t samples = 1; samples < 300; ++samples) {
        const SampleSplit split = split_samples(samples);
        EXPECT_EQ(split.held_out.size(), std::max<std::size_t>(1, samples / 8)) << samples;
        EXPECT_EQ(split.training.size() + split.held_out.size(), samples);
    }
    EXPECT_EQ(split_samples(5).held_out, std::vector<std::size_t>{4});
    EXPECT_EQ(split_samples(8).held_out, std::vector<std::size_t>{7});
    EXPECT_EQ(split_samples(17).held_out, (std::vector<std::size_t>{7, 15}));
}

}  // namespace
}  // namespace espalier
