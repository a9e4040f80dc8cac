// The control plane: agreement about failures, texts to and from rank 0.
#include "mpi/session.h"

#include "src/base/clock.h"
#include "tests/support/expect.h"
#include "tests/support/ranks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>

namespace espalier {
namespace {

using support::session;
using support::world;

/// What agree throws on this rank: status and sentence, or nothing. `failing` gets the rank that it names.
std::pair<int, std::string> outcome(const std::function<void()>& step, std::optional<int>* failing = nullptr) {
    try {
        session().agree(step);
    } catch (const Error& error) {
        if (failing != nullptr) *failing = error.rank();
        return {static_cast<int>(error.status()), error.what()};
    }
    return {0, ""};
}

TEST(Session, KnowsItsPlace) {
    EXPECT_EQ(session().rank(), world().rank());
    EXPECT_EQ(session().size(), world().size());
    EXPECT_LT(session().local_rank(), session().local_size());
    EXPECT_LE(session().local_size(), session().size());
    const auto ranks = world().all_gather_value(session().rank());
    for (int r = 0; r < session().size(); ++r) EXPECT_EQ(ranks[static_cast<std::size_t>(r)], r);
}

TEST(Agreed, IsTrueOnlyWhenAllRanksSaySo) {
    EXPECT_TRUE(support::agreed(true));
    for (int rank = 0; rank < session().size(); ++rank) EXPECT_FALSE(support::agreed(session().rank() != rank));
}

TEST(SessionAgree, SucceedsWhenAllDo) {
    int runs = 0;
    EXPECT_NO_THROW(session().agree([&] { ++runs; }));
    EXPECT_EQ(runs, 1);
}

TEST(SessionAgree, OneFailingRankFailsAllWithItsSentence) {
    for (int failing = 0; failing < session().size(); ++failing) {
        const std::string sentence = "rank " + std::to_string(failing) + " cannot " + std::string(5000, 'x');
        std::optional<int> named;
        const auto found = outcome(
            [&] {
                if (session().rank() == failing) throw InputError(sentence);
            },
            &named);
        EXPECT_EQ(named, failing);
        EXPECT_EQ(found.first, static_cast<int>(ExitStatus::input));
        EXPECT_EQ(found.second, sentence);
    }
}

TEST(SessionAgree, TheLowestFailingRankSpeaks) {
    const int lowest = session().size() / 2;
    const auto found = outcome([&] {
        if (session().rank() < lowest) return;
        if (session().rank() == lowest) throw ResourceError("the lowest");
        throw InputError("rank " + std::to_string(session().rank()));
    });
    EXPECT_EQ(found.first, static_cast<int>(ExitStatus::resources));
    EXPECT_EQ(found.second, "the lowest");
}

TEST(SessionAgree, OtherExceptionsAreBugs) {
    const auto found = outcome([&] {
        if (session().rank() == session().size() - 1) throw std::out_of_range("index 9");
    });
    EXPECT_EQ(found.first, static_cast<int>(ExitStatus::bug));
    EXPECT_EQ(found.second, "internal error: index 9");
}

TEST(Session, BroadcastsATextOfAnyLength) {
    for (const std::size_t length : {0U, 1U, 100000U}) {
        const std::string text = session().rank() == 0 ? std::string(length, 'y') + "\0z" : "something else";
        const std::string expected = std::string(length, 'y') + "\0z";
        EXPECT_EQ(session().broadcast_text(text), expected);
    }
}

TEST(Session, PostsArriveAtRankZero) {
    constexpr int posts = 25;
    for (int i = 0; i < posts; ++i) {
        session().post_to_root(std::to_string(session().rank()) + " " + std::to_string(i) + std::string(3000, '.'));
    }
    std::vector<std::string> texts;
    const Stopwatch waiting;
    while (session().rank() == 0 && texts.size() < static_cast<std::size_t>(posts * session().size()) &&
           waiting.seconds() < 60) {
        for (std::string& text : session().collect_posts()) texts.push_back(std::move(text));
    }
    world().barrier();
    if (session().rank() != 0) {
        EXPECT_TRUE(session().collect_posts().empty());
        return;
    }
    EXPECT_EQ(texts.size(), static_cast<std::size_t>(posts * session().size()));
    std::map<int, int> next;  // posts of one rank keep their order
    for (const std::string& text : texts) {
        const int rank = std::stoi(text);
        EXPECT_EQ(text, std::to_string(rank) + " " + std::to_string(next[rank]++) + std::string(3000, '.'));
    }
    EXPECT_TRUE(session().collect_posts().empty());
}

}  // namespace
}  // namespace espalier
