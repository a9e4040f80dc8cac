// Who owns what, for every number of ranks up to 64.
#include "mpi/topology.h"

#include "tests/support/expect.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

namespace espalier {
namespace {

struct Sizes {
    std::size_t blocks, groups, samples, shards;
};
constexpr Sizes topology_cases[] = {{1, 1, 1, 1},     {32, 1, 128, 8},  {32, 4, 128, 8}, {32, 32, 128, 128},
                                    {80, 7, 100, 13}, {5, 3, 10, 7},    {2, 2, 3, 3},    {40, 16, 64, 64},
                                    {28, 5, 17, 1},   {3, 2, 512, 100}, {7, 7, 128, 120}};

TEST(PartOf, CoversEverythingInOrder) {
    for (std::size_t count = 0; count < 40; ++count) {
        for (std::size_t parts = 1; parts < 12; ++parts) {
            std::size_t next = 0;
            for (std::size_t index = 0; index < parts; ++index) {
                const IndexRange part = part_of(count, parts, index);
                ASSERT_EQ(part.begin, next);
                ASSERT_TRUE(part.size() == count / parts || part.size() == (count + parts - 1) / parts);
                next = part.end;
            }
            ASSERT_EQ(next, count);
        }
    }
}

/// body(topology, sizes, ranks) for all topology_cases and every P up to 64.
template <typename Body>
void for_each_topology(const Body& body) {
    for (const Sizes& sizes : topology_cases) {
        for (std::size_t ranks = 1; ranks <= 64; ++ranks) {
            SCOPED_TRACE(std::to_string(ranks) + " ranks, " + std::to_string(sizes.blocks) + " blocks in " +
                         std::to_string(sizes.groups) + " groups, " + std::to_string(sizes.samples) + " samples in " +
                         std::to_string(sizes.shards) + " shards");
            body(Topology(ranks, sizes.blocks, sizes.groups, sizes.samples, sizes.shards), sizes, ranks);
            if (testing::Test::HasFatalFailure()) return;
        }
    }
}

TEST(Topology, EveryBlockHasOneOwnerInItsGroup) {
    for_each_topology([](const Topology& topology, const Sizes& sizes, std::size_t) {
        ASSERT_EQ(topology.groups().size(), sizes.groups);
        std::size_t next = 0;
        for (const BlockGroup& group : topology.groups()) {
            ASSERT_EQ(group.blocks.begin, next);
            ASSERT_GT(group.blocks.size(), 0U);
            for (std::size_t block = group.blocks.begin; block < group.blocks.end; ++block) {
                ASSERT_GE(group.owner_of(block), 0);
                ASSERT_LT(static_cast<std::size_t>(group.owner_of(block)), group.ranks.size());
            }
            next = group.blocks.end;
        }
        ASSERT_EQ(next, sizes.blocks);
    });
}

TEST(Topology, OwnersTakeTurns) {
    const Topology topology(4, 16, 1, 8, 8);
    for (std::size_t block = 0; block < 16; ++block) {
        EXPECT_EQ(topology.groups()[0].owner_of(block), static_cast<int>(block % 4));
    }
}

TEST(Topology, EveryRankWorksAndGroupsShareRanksOnlyWhenThereAreTooFew) {
    for_each_topology([](const Topology& topology, const Sizes& sizes, std::size_t ranks) {
        std::vector<std::size_t> groups_of_rank(ranks, 0);
        for (const BlockGroup& group : topology.groups()) {
            ASSERT_FALSE(group.ranks.empty());
            for (std::size_t i = 0; i < group.ranks.size(); ++i) {
                ASSERT_LT(static_cast<std::size_t>(group.ranks[i]), ranks);
                if (i > 0) {
                    ASSERT_LT(group.ranks[i - 1], group.ranks[i]);
                }
                ++groups_of_rank[static_cast<std::size_t>(group.ranks[i])];
            }
        }
        const std::size_t least = ranks >= sizes.groups ? 1 : sizes.groups / ranks;
        const std::size_t most = ranks >= sizes.groups ? 1 : (sizes.groups + ranks - 1) / ranks;
        for (std::size_t rank = 0; rank < ranks; ++rank) {
            ASSERT_GE(groups_of_rank[rank], least) << rank;
            ASSERT_LE(groups_of_rank[rank], most) << rank;
        }
    });
}

TEST(Topology, RoundsTakeTheGroupsInOrderAndKeepEveryRankBusy) {
    for_each_topology([](const Topology& topology, const Sizes& sizes, std::size_t ranks) {
        ASSERT_EQ(topology.ranks(), ranks);
        ASSERT_EQ(topology.rounds(), ranks >= sizes.groups ? 1 : (sizes.groups + ranks - 1) / ranks);
        std::size_t next = 0;
        for (std::size_t round = 0; round < topology.rounds(); ++round) {
            const IndexRange groups = topology.groups_of_round(round);
            ASSERT_EQ(groups.begin, next);
            next = groups.end;
            std::size_t idle = 0;
            for (std::size_t rank = 0; rank < ranks; ++rank) {
                const std::optional<std::size_t> group = topology.group_of(static_cast<int>(rank), round);
                if (!group) {
                    ++idle;
                    continue;
                }
                ASSERT_TRUE(groups.contains(*group));
                const std::vector<int>& members = topology.groups()[*group].ranks;
                ASSERT_EQ(std::count(members.begin(), members.end(), static_cast<int>(rank)), 1);
            }
            ASSERT_EQ(idle, ranks > groups.size() && ranks < sizes.groups ? ranks - groups.size() : 0U);
        }
        ASSERT_EQ(next, sizes.groups);
    });
}

TEST(Topology, DenseSamplesAreSpreadOverAllRanks) {
    for_each_topology([](const Topology& topology, const Sizes& sizes, std::size_t ranks) {
        for (std::size_t sample = 0; sample < sizes.samples; ++sample) {
            ASSERT_TRUE(topology.dense_samples_of(topology.dense_holder_of(sample)).contains(sample));
        }
        for (std::size_t rank = 0; rank < ranks; ++rank) {
            const std::size_t held = topology.dense_samples_of(static_cast<int>(rank)).size();
            ASSERT_GE(held, sizes.samples / ranks);
            ASSERT_LE(held, (sizes.samples + ranks - 1) / ranks);
        }
    });
}

TEST(Topology, ShardsAndSamplesArePartitionedWithoutGaps) {
    for_each_topology([](const Topology& topology, const Sizes& sizes, std::size_t) {
        ASSERT_EQ(topology.samples(), sizes.samples);
        ASSERT_EQ(topology.shards(), sizes.shards);
        std::size_t sample = 0;
        for (std::size_t shard = 0; shard < sizes.shards; ++shard) {
            ASSERT_EQ(topology.samples_of_shard(shard).begin, sample);
            ASSERT_GT(topology.samples_of_shard(shard).size(), 0U);
            sample = topology.samples_of_shard(shard).end;
        }
        ASSERT_EQ(sample, sizes.samples);
        for (const BlockGroup& group : topology.groups()) {
            std::size_t next_shard = 0, next_sample = 0;
            for (std::size_t d = 0; d < group.ranks.size(); ++d) {
                const IndexRange shards = topology.shards_of(group, d), samples = topology.samples_of(group, d);
                ASSERT_EQ(shards.begin, next_shard);
                ASSERT_EQ(samples.begin, next_sample);
                // Whole shards only.
                std::size_t count = 0;
                for (std::size_t s = shards.begin; s < shards.end; ++s) count += topology.samples_of_shard(s).size();
                ASSERT_EQ(samples.size(), count);
                for (std::size_t n = samples.begin; n < samples.end; ++n) ASSERT_EQ(topology.holder_of(group, n), d);
                next_shard = shards.end;
                next_sample = samples.end;
            }
            ASSERT_EQ(next_shard, sizes.shards);
            ASSERT_EQ(next_sample, sizes.samples);
        }
    });
}

TEST(Topology, ShardsDoNotDependOnTheNumberOfRanks) {
    for (std::size_t ranks = 1; ranks <= 64; ++ranks) {
        const Topology topology(ranks, 32, 4, 100, 7);
        for (std::size_t shard = 0; shard < 7; ++shard) {
            ASSERT_EQ(topology.samples_of_shard(shard), part_of(100, 7, shard));
        }
    }
}

TEST(Topology, RefusesImpossibleSizes) {
    support::expect_input_error({"--block-groups", "33", "32"}, [] { Topology(1, 32, 33, 8, 8); });
    support::expect_input_error({"--block-groups", "0"}, [] { Topology(1, 32, 0, 8, 8); });
    support::expect_input_error({"--shards", "9", "8"}, [] { Topology(1, 32, 1, 8, 9); });
    support::expect_input_error({"--shards", "0"}, [] { Topology(1, 32, 1, 8, 0); });
    support::expect_error(ExitStatus::bug, {"no data rank holds"}, [] {
        const Topology topology(2, 4, 1, 8, 8);
        static_cast<void>(topology.holder_of(topology.groups()[0], 8));
    });
}

}  // namespace
}  // namespace espalier
