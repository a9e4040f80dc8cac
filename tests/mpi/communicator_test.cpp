// The verbs of the data plane, with values that tell exactly who sent them.
#include "mpi/communicator.h"

#include "mpi/deadline.h"
#include "tests/support/expect.h"
#include "tests/support/ranks.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <numeric>

namespace espalier {
namespace {

using support::session;
using support::world;

std::int64_t value_of(int rank, std::size_t i) {
    return static_cast<std::int64_t>(rank) * 1000000007 + static_cast<std::int64_t>(i);
}

/// Offsets of uneven parts: rank r contributes r % 3 == 1 ? 0 : base + r elements.
std::vector<std::size_t> uneven_offsets(std::size_t base) {
    std::vector<std::size_t> offsets = {0};
    for (int r = 0; r < world().size(); ++r) {
        offsets.push_back(offsets.back() + (r % 3 == 1 ? 0 : base + static_cast<std::size_t>(r)));
    }
    return offsets;
}

void expect_all_gather(Communicator& group, std::size_t base) {
    const auto offsets = uneven_offsets(base);
    std::vector<std::int64_t> data(offsets.back() + 3, -1);  // what lies behind the parts is left alone
    const auto me = static_cast<std::size_t>(group.rank());
    for (std::size_t i = offsets[me]; i < offsets[me + 1]; ++i) data[i] = value_of(group.rank(), i);
    group.all_gather(std::span<std::int64_t>(data), offsets);
    std::size_t wrong = 0;
    for (int r = 0; r < group.size(); ++r) {
        const auto rank = static_cast<std::size_t>(r);
        for (std::size_t i = offsets[rank]; i < offsets[rank + 1]; ++i) wrong += data[i] != value_of(r, i) ? 1U : 0U;
    }
    EXPECT_EQ(wrong, 0U);
    EXPECT_EQ(data[offsets.back()], -1);
}

TEST(Communicator, BroadcastFromEveryRoot) {
    for (int root = 0; root < world().size(); ++root) {
        for (const std::size_t size : {0U, 1U, 1000U, 300000U}) {
            std::vector<std::int64_t> data(size, -1);
            if (world().rank() == root) {
                for (std::size_t i = 0; i < size; ++i) data[i] = value_of(root, i);
            }
            world().broadcast(std::span<std::int64_t>(data), root);
            std::size_t wrong = 0;
            for (std::size_t i = 0; i < size; ++i) wrong += data[i] != value_of(root, i) ? 1U : 0U;
            EXPECT_EQ(wrong, 0U) << "root " << root << ", " << size << " values";
        }
    }
}

TEST(Communicator, AllGatherWithUnevenAndEmptyParts) {
    for (const std::size_t base : {0U, 1U, 5U, 1000U}) expect_all_gather(world(), base);
}

TEST(Communicator, LargeAllGatherWithEmptyParts) {
    expect_all_gather(world(), 500000);  // 4 MB a rank: beyond every eager limit
}

TEST(Communicator, SeveralAllGathersUnderWay) {
    constexpr std::size_t gathers = 4;
    const auto me = static_cast<std::size_t>(world().rank());
    std::vector<std::vector<std::int64_t>> data;
    std::vector<std::unique_ptr<Exchange>> under_way;
    data.reserve(gathers);
    for (std::size_t g = 0; g < gathers; ++g) {
        const auto offsets = uneven_offsets(1 + 30000 * g);
        auto& values = data.emplace_back(offsets.back(), -1);
        for (std::size_t i = offsets[me]; i < offsets[me + 1]; ++i) values[i] = value_of(world().rank(), i + g);
        under_way.push_back(world().start_all_gather(std::span<std::int64_t>(values), offsets));
    }
    for (const auto& gather : under_way) gather->finish();
    for (std::size_t g = 0; g < gathers; ++g) {
        const auto offsets = uneven_offsets(1 + 30000 * g);
        std::size_t wrong = 0;
        for (int r = 0; r < world().size(); ++r) {
            const auto rank = static_cast<std::size_t>(r);
            for (std::size_t i = offsets[rank]; i < offsets[rank + 1]; ++i) wrong += data[g][i] != value_of(r, i + g);
        }
        EXPECT_EQ(wrong, 0U) << "gather " << g;
    }
}

TEST(Communicator, AllGatherIsExactlySummable) {
    const auto values = world().all_gather_value(std::int64_t{1} << world().rank());
    EXPECT_EQ(std::accumulate(values.begin(), values.end(), std::int64_t{0}), (std::int64_t{1} << world().size()) - 1);
    for (int r = 0; r < world().size(); ++r) EXPECT_EQ(values[static_cast<std::size_t>(r)], std::int64_t{1} << r);
}

TEST(Communicator, AllGatherOfNothing) {
    const std::vector<std::size_t> offsets(static_cast<std::size_t>(world().size()) + 1, 0);
    std::vector<float> nothing;
    world().all_gather(std::span<float>(nothing), offsets);
}

TEST(Communicator, RefusesWrongOffsets) {
    std::vector<float> data(4);
    const std::vector<std::size_t> too_few(static_cast<std::size_t>(world().size()), 0);
    support::expect_error(ExitStatus::bug, {"offsets"}, [&] { world().all_gather(std::span<float>(data), too_few); });
    std::vector<std::size_t> beyond(static_cast<std::size_t>(world().size()) + 1, 0);
    beyond.back() = 5;
    support::expect_error(ExitStatus::bug, {"offsets"}, [&] { world().all_gather(std::span<float>(data), beyond); });
}

TEST(Communicator, ExchangeBetweenAllPairsInOrder) {
    const int me = world().rank(), ranks = world().size();
    constexpr std::size_t size = 20000, messages = 3;
    std::vector<std::vector<std::int64_t>> sent, received;
    std::vector<Message> sends, receives;
    sent.reserve(messages * static_cast<std::size_t>(ranks));
    received.reserve(messages * static_cast<std::size_t>(ranks));
    const auto message = [](int peer, std::vector<std::int64_t>& data) {
        return Message{peer, reinterpret_cast<std::byte*>(data.data()), data.size() * sizeof(std::int64_t)};
    };
    for (std::size_t m = 0; m < messages; ++m) {
        for (int peer = 0; peer < ranks; ++peer) {
            if (peer == me) continue;
            // The sizes of consecutive messages between two ranks differ: an exchange of their order shows.
            sent.emplace_back(size + m, value_of(me * ranks + peer, m));
            received.emplace_back(size + m, -1);
            sends.push_back(message(peer, sent.back()));
            receives.push_back(message(peer, received.back()));
        }
    }
    world().start_exchange(sends, receives)->finish();
    std::size_t i = 0;
    for (std::size_t m = 0; m < messages; ++m) {
        for (int peer = 0; peer < ranks; ++peer) {
            if (peer == me) continue;
            EXPECT_EQ(received[i], std::vector<std::int64_t>(size + m, value_of(peer * ranks + me, m))) << peer;
            ++i;
        }
    }
}

TEST(Communicator, AForgottenExchangeIsFinishedByItsDestructor) {
    const int right = (world().rank() + 1) % world().size(),
              left = (world().rank() + world().size() - 1) % world().size();
    if (right == world().rank()) return;
    std::int64_t out = world().rank(), in = -1;
    const Message send{right, reinterpret_cast<std::byte*>(&out), sizeof out};
    const Message receive{left, reinterpret_cast<std::byte*>(&in), sizeof in};
    { const auto exchange = world().start_exchange({&send, 1}, {&receive, 1}); }
    EXPECT_EQ(in, left);
}

TEST(Communicator, RefusesAMessageToOneself) {
    std::int64_t value = 0;
    const Message self{world().rank(), reinterpret_cast<std::byte*>(&value), sizeof value};
    support::expect_error(ExitStatus::bug, {"internal error"}, [&] {
        static_cast<void>(world().start_exchange({&self, 1}, {}));
    });
}

TEST(Communicator, Barrier) {
    for (int i = 0; i < 20; ++i) world().barrier();
}

TEST(Communicator, GroupsOfTheWorld) {
    // Two halves, in reverse order of world ranks: a group rank is the place in the list.
    const int half = world().size() / 2, begin = world().rank() < half ? 0 : half,
              end = world().rank() < half ? half : world().size();
    std::vector<int> members;
    for (int rank = end - 1; rank >= begin; --rank) members.push_back(rank);
    const auto group = session().make_group(members);
    EXPECT_EQ(group->size(), end - begin);
    EXPECT_EQ(group->rank(), end - 1 - world().rank());
    EXPECT_EQ(group->all_gather_value(world().rank()), members);
}

TEST(SingleCommunicator, IsAlone) {
    const auto alone = make_single_communicator();
    EXPECT_EQ(alone->rank(), 0);
    EXPECT_EQ(alone->size(), 1);
    alone->barrier();
    EXPECT_EQ(alone->all_gather_value(7), std::vector<int>{7});
    std::vector<int> data = {1, 2, 3};
    alone->broadcast(std::span<int>(data), 0);
    EXPECT_EQ(data, (std::vector<int>{1, 2, 3}));
    alone->start_exchange({}, {})->finish();
    support::expect_error(ExitStatus::bug, {"root"}, [&] { alone->broadcast(std::span<int>(data), 1); });
}

TEST(Deadline, ASentenceSaysWhoWhereAndForHowLong) {
    const auto expect = [](const LongWait& wait, const std::string& begin) {
        const std::string sentence = sentence_of(wait);
        EXPECT_EQ(sentence.substr(0, sentence.find(" (ESPALIER_COMMUNICATION_DEADLINE")), begin + "; the job is ended");
    };
    expect({6 * 3600.0, {3}, "block 12, after its phase 'mask'", ""},
           "rank 3 has not answered for 6 h 00 min in block 12, after its phase 'mask'");
    expect({5.008, {}, "", "ncclGroupEnd"}, "another rank has not answered for 5.0 s (ncclGroupEnd)");
    expect({0.05, {1, 2}, "", ""}, "ranks 1, 2 have not answered for 50 ms");
    expect({1, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, "", ""},
           "ranks 0, 1, 2, 3, 4, 5, 6, 7 and 2 more have not answered for 1.0 s");
}

/// The deadline of this rank, for a while.
class ShortDeadline {
  public:
    ShortDeadline() { setenv("ESPALIER_COMMUNICATION_DEADLINE", "0.05", 1); }
    ShortDeadline(const ShortDeadline&) = delete;
    ShortDeadline& operator=(const ShortDeadline&) = delete;
    ~ShortDeadline() { unsetenv("ESPALIER_COMMUNICATION_DEADLINE"); }
};

TEST(Deadline, ASilentRankIsNamedByItsNumberInTheWorld) {
    if (world().size() < 3) return;
    // In the group the order is turned around; the world's last rank is its rank 0.
    std::vector<int> members(static_cast<std::size_t>(world().size()));
    std::iota(members.rbegin(), members.rend(), 0);
    const auto group = session().make_group(members);
    group->set_place("block 7");
    const int waiting = group->size() - 1, silent = 0, prompt = 1;
    char from_silent = 0, from_prompt = 0, go = 0, answer = 1;
    const auto message = [](int peer, char& value) {
        return std::vector<Message>{{peer, reinterpret_cast<std::byte*>(&value), 1}};
    };
    if (group->rank() == prompt) group->start_exchange(message(waiting, answer), {})->finish();
    if (group->rank() == silent) {
        group->start_exchange({}, message(waiting, go))->finish();  // comes only when the deadline has passed
        group->start_exchange(message(waiting, answer), {})->finish();
    }
    if (group->rank() == waiting) {
        group->start_exchange({}, message(prompt, from_prompt))->finish();
        std::vector<Message> receives = message(silent, from_silent);
        const auto exchange = group->start_exchange({}, receives);
        {
            const ShortDeadline deadline;
            const std::string name = "rank " + std::to_string(world().size() - 1) + " has not answered for";
            support::expect_error(ExitStatus::resources, {name.c_str(), " in block 7;"}, [&] { exchange->finish(); });
        }
        group->start_exchange(message(silent, go), {})->finish();
        exchange->finish();
        EXPECT_EQ(from_silent, 1);
    }
    group->barrier();
}

TEST(Deadline, WhereAllTakePartSomeRankIsMissing) {
    if (world().size() < 2) return;
    world().set_place("the dense pass of block 3");
    char go = 0;
    const std::vector<Message> message = {{world().rank() == 0 ? 1 : 0, reinterpret_cast<std::byte*>(&go), 1}};
    std::vector<int> values(static_cast<std::size_t>(world().size()));
    std::vector<std::size_t> offsets(values.size() + 1);
    std::iota(offsets.begin(), offsets.end(), std::size_t{0});
    values[static_cast<std::size_t>(world().rank())] = world().rank();
    if (world().rank() == 1) world().start_exchange({}, message)->finish();
    const auto gather = world().start_all_gather(std::span<int>(values), offsets);
    if (world().rank() == 0) {
        const ShortDeadline deadline;
        support::expect_error(ExitStatus::resources,
                              {"another rank has not answered for", " in the dense pass of block 3;"},
                              [&] { gather->finish(); });
    }
    if (world().rank() == 0) world().start_exchange(message, {})->finish();
    gather->finish();
    for (std::size_t r = 0; r < values.size(); ++r) EXPECT_EQ(values[r], static_cast<int>(r));
    world().set_place("");
}

}  // namespace
}  // namespace espalier
