// Likelihoods have the same digits on every number of ranks.
#include "mpi/tensor_communicator.h"
#include "src/evaluate/likelihoods.h"
#include "src/evaluate/perplexity.h"
#include "src/evaluate/request_packing.h"
#include "src/weights/checkpoint_source.h"
#include "tests/support/measure.h"
#include "tests/support/ranks.h"
#include "tests/support/requests.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/test_device.h"
#include "tests/support/tiny_model.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using namespace support;

class LikelihoodsOnRanks : public testing::Test {
  protected:
    const TemporaryFolder folder_;  // every rank its own
    const std::unique_ptr<Device> device_ = make_test_device(1);
    std::unique_ptr<CheckpointSource> source_;

    LikelihoodsOnRanks() {
        make_tiny_model("qwen3").write(folder_.path());
        source_ = std::make_unique<CheckpointSource>(folder_.path());
    }
    void expect_those_of_one_rank(std::span<const PackedSequences> passes) {
        const TensorCommunicator tensors(world(), *device_);
        const SayProgress quiet = [](const std::string&) {};
        const std::vector<Likelihood> found =
            measure_likelihoods({*device_, tensors.get(), world(), *source_, StoragePlace::device, quiet}, passes);
        const std::vector<Likelihood> alone = measure_alone(*device_, *source_, passes);
        ASSERT_EQ(found.size(), alone.size());
        for (std::size_t i = 0; i < found.size(); ++i) {
            EXPECT_EQ(found[i].logarithm, alone[i].logarithm) << i;
            EXPECT_EQ(found[i].greedy, alone[i].greedy) << i;
        }
    }
};

TEST_F(LikelihoodsOnRanks, OfWindows) {
    std::vector<std::int32_t> tokens;
    for (std::int32_t i = 0; i < 53; ++i) tokens.push_back(i * i % 40);
    expect_those_of_one_rank(windows_of_text(source_->config(), tokens, 10, 20));  // three passes
}

TEST_F(LikelihoodsOnRanks, OfRequests) {
    RequestTable requests;
    for (std::int32_t i = 0; i < 12; ++i) {
        const std::vector<std::int32_t> context(static_cast<std::size_t>(2 + i / 4), i / 2);  // of two each
        add_request(requests, context, {i, 3});
    }
    const RequestPacking packing = pack_requests(requests, source_->config(), {12});
    ASSERT_EQ(packing.parts.size(), 1U);
    EXPECT_GT(packing.parts.front().size(), 2U);
    EXPECT_TRUE(shape_of(packing.parts.front()).with_prefixes);
    expect_those_of_one_rank(packing.parts.front());
}

}  // namespace
}  // namespace espalier
