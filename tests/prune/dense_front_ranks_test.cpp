// Samples reach the ranks of a block group from all ranks, wherever they lie.
#include "mpi/tensor_communicator.h"
#include "src/prune/dense_front.h"
#include "src/samples/sample_reader.h"
#include "tests/support/ranks.h"
#include "tests/support/test_device.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace espalier {
namespace {

using namespace support;

constexpr std::size_t samples = 11, tokens = 3, hidden = 40;

/// Every element of sample n is n + 0.5.
void fill(Device& device, HiddenStates& states) {
    for (std::size_t n = states.samples().begin; n < states.samples().end; ++n) {
        const Tensor values =
            upload(device, tokens, hidden, std::vector<float>(tokens * hidden, static_cast<float>(n) + 0.5F));
        if (states.on_host())
            device.wait_for_copy(states.write_back(n, values));
        else
            device.copy(values, states.sample(n));
    }
}

void expect_filled(Device& device, const HiddenStates& states, const std::string& what) {
    device.synchronize();
    SampleReader reader(device, states, all_samples_of(states));
    for (std::size_t n = states.samples().begin; n < states.samples().end; ++n) {
        EXPECT_EQ(download(device, reader.next()), std::vector<float>(tokens * hidden, static_cast<float>(n) + 0.5F))
            << what << ", sample " << n;
    }
}

class DenseFrontOnRanks : public testing::TestWithParam<StoragePlace> {};
INSTANTIATE_TEST_SUITE_P(Places, DenseFrontOnRanks, testing::Values(StoragePlace::device, StoragePlace::host),
                         [](const auto& info) {
                             return std::string(info.param == StoragePlace::device ? "device" : "host");
                         });

TEST_P(DenseFrontOnRanks, EveryGroupGetsAllSamples) {
    const auto device = make_test_device(1);
    const TensorCommunicator tensors(world(), *device);
    const auto ranks = static_cast<std::size_t>(world().size());
    for (const std::size_t groups : {std::size_t{2}, std::size_t{3}, ranks}) {
        const Topology topology(ranks, 8, groups, samples, 5);
        HiddenStates own(*device, topology.dense_samples_of(world().rank()), tokens, hidden, GetParam());
        fill(*device, own);
        DenseFront front(*device, tensors.get(), topology, std::move(own));
        for (std::size_t round = 0; round < topology.rounds(); ++round) {
            const IndexRange of_round = topology.groups_of_round(round);
            for (std::size_t g = of_round.begin; g < of_round.end; ++g) {
                const BlockGroup& group = topology.groups()[g];
                if (topology.group_of(world().rank(), round) != g) {
                    front.hand_over(group, nullptr);
                    continue;
                }
                const auto place = std::find(group.ranks.begin(), group.ranks.end(), world().rank());
                const auto me = static_cast<std::size_t>(place - group.ranks.begin());
                HiddenStates mine(*device, topology.samples_of(group, me), tokens, hidden, GetParam());
                front.hand_over(group, &mine);
                expect_filled(*device, mine, std::to_string(groups) + " groups, group " + std::to_string(g));
            }
        }
    }
}

}  // namespace
}  // namespace espalier
