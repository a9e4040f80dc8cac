// Likelihoods of continuations against their definition in float64.
#include "src/evaluate/likelihoods.h"

#include "src/evaluate/request_packing.h"
#include "src/weights/checkpoint_source.h"
#include "tests/support/expect.h"
#include "tests/support/measure.h"
#include "tests/support/reference_likelihoods.h"
#include "tests/support/requests.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/test_device.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using namespace support;

class LikelihoodsTest : public testing::Test {
  protected:
    TemporaryFolder folder_;
    std::unique_ptr<Device> device_ = make_test_device(1);
    RequestTable requests_;
    Random random_{6};

    std::vector<std::int32_t> any_ids(std::size_t count) {
        std::vector<std::int32_t> ids;
        for (std::size_t i = 0; i < count; ++i) ids.push_back(static_cast<std::int32_t>(random_.below(40)));
        return ids;
    }
    /// In the order of the requests.
    std::vector<Likelihood> score(const TinyModel& model, StoragePlace place = StoragePlace::device,
                                  std::size_t rows = 24) {
        model.write(folder_.path());
        const CheckpointSource source(folder_.path());
        const RequestPacking packing = pack_requests(requests_, source.config(), {rows});
        std::vector<Likelihood> in_order(packing.order.size());
        auto request = packing.order.begin();
        for (const auto& part : packing.parts) {
            for (const Likelihood& one : measure_alone(*device_, source, part, place)) in_order[*request++] = one;
        }
        return in_order;
    }
    void expect_definition(const TinyModel& model, const std::string& what) {
        const std::vector<Likelihood> found = score(model);
        for (std::size_t r = 0; r < requests_.size(); ++r) {
            const auto context = requests_.context(r), continuation = requests_.continuation(r);
            std::vector<std::int32_t> ids(context.begin(), context.end());
            ids.insert(ids.end(), continuation.begin(), continuation.end());
            const auto predictions = reference_predictions(model, ids);
            double logarithm = 0;
            bool greedy = true;
            for (const ReferencePrediction& one : std::span(predictions).last(continuation.size())) {
                logarithm -= one.loss;
                greedy = greedy && one.most_likely;
            }
            EXPECT_NEAR(found[r].logarithm, logarithm, 100 * unit_roundoff * -logarithm) << what << ", request " << r;
            EXPECT_EQ(found[r].greedy, greedy) << what << ", request " << r;
        }
    }
};

TEST_F(LikelihoodsTest, EqualTheDefinitionForEveryFamily) {
    for (const std::size_t length : {5U, 1U, 9U}) {
        const std::vector<std::int32_t> context = any_ids(length);
        for (const std::size_t own : {3U, 1U, 2U}) add_request(requests_, context, any_ids(own));
    }
    add_request(requests_, any_ids(4), any_ids(6));
    for (const std::string& family : families) expect_definition(make_tiny_model(family), family);
}

TEST_F(LikelihoodsTest, GreedyIsWhatTheModelWouldSay) {
    const TinyModel model = make_tiny_model("llama");
    std::vector<std::int32_t> ids = any_ids(6);
    for (int step = 0; step < 3; ++step) {
        ids.push_back(0);
        while (!reference_predictions(model, ids).back().most_likely) ++ids.back();
    }
    const std::vector<std::int32_t> context(ids.begin(), ids.begin() + 6);
    std::vector<std::int32_t> said(ids.begin() + 6, ids.end());
    add_request(requests_, context, said);
    said[1] = (said[1] + 1) % 40;
    add_request(requests_, context, said);
    const std::vector<Likelihood> found = score(model);
    EXPECT_TRUE(found[0].greedy);
    EXPECT_FALSE(found[1].greedy);
    EXPECT_GT(found[0].logarithm, found[1].logarithm);
}

TEST_F(LikelihoodsTest, SameDigitsFromHostMemory) {
    for (std::size_t i = 0; i < 6; ++i) add_request(requests_, any_ids(3 + i), any_ids(1 + i % 3));
    const TinyModel model = make_tiny_model("mistral");
    const std::vector<Likelihood> device = score(model, StoragePlace::device, 8),
                                  host = score(model, StoragePlace::host, 8);
    for (std::size_t r = 0; r < requests_.size(); ++r) EXPECT_EQ(device[r].logarithm, host[r].logarithm);
}

}  // namespace
}  // namespace espalier
