// A rehearsal counts what real ranks count: every verb, call and byte of every phase, multiplications, and memory.
#include "src/plan/rehearsal.h"
#include "tests/support/prune_problem.h"
#include "tests/support/ranks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace espalier {
namespace {

using namespace support;

constexpr std::size_t block = 1;

class RehearsalOfRanks : public testing::Test {
  protected:
    Rehearsal rehearse_rank(const PruneOptions& options, int rank) const {
        const BlockStorage storage{DType::f32, std::vector<DType>(problem_.layout.vectors().size(), DType::f32)};
        const auto ranks = static_cast<std::size_t>(world().size());
        const Topology topology(ranks, 4, 1, options.samples, options.shards);
        const bool searches = options.method.optimises() && !options.ro.learning_rate;
        const RehearsedRun run{.options = options,
                               .model = {problem_.config, problem_.layout, storage},
                               .topology = topology,
                               .rank = rank,
                               .block = block,
                               .searches_rate = searches};
        return rehearse(run, device_model(test_device_is_gpu() ? "h100" : "cpu"), problem_.place);
    }
    void expect_equal_counts(const PruneOptions& options, const std::string& what) const {
        const PruneResult real = problem_.prune(options, world(), block);
        const Rehearsal mine = rehearse_rank(options, world().rank());
        for (const auto& [phase, cost] : real.costs) {
            const auto found = mine.phases.find(phase);
            ASSERT_TRUE(found != mine.phases.end()) << what << ": " << phase;
            for (std::size_t verb = 0; verb < communication_verbs; ++verb) {
                const CommunicationCount &counted = cost.communication.counts[verb],
                                         &rehearsed = found->second.communication.counts[verb];
                EXPECT_EQ(counted.calls, rehearsed.calls) << what << ": " << phase << ", " << verb_names[verb];
                EXPECT_EQ(counted.bytes_sent, rehearsed.bytes_sent)
                    << what << ": " << phase << ", " << verb_names[verb];
                EXPECT_EQ(counted.bytes_received, rehearsed.bytes_received)
                    << what << ": " << phase << ", " << verb_names[verb];
            }
        }
        double flops = 0;
        std::size_t peak = 0;
        for (int rank = 0; rank < world().size(); ++rank) {
            const Rehearsal rehearsal = rehearse_rank(options, rank);
            flops += rehearsal.flops;
            peak = std::max(peak, rehearsal.peak_bytes());
        }
        EXPECT_EQ(flops, real.report.flops) << what;
        if (!test_device_is_gpu()) {
            EXPECT_EQ(peak, real.report.peak_bytes) << what;
            return;
        }
        // A solver's scratch is a guess from above, and partial sums are as many as they may be.
        EXPECT_GE(peak, real.report.peak_bytes) << what;
        EXPECT_LE(static_cast<double>(peak), 1.25 * static_cast<double>(real.report.peak_bytes) + 16384) << what;
    }

    /// An emulated GPU takes its time.
    PruneProblem problem_{"mistral", 12, test_device_is_gpu() ? 6U : 30U};
};

TEST_F(RehearsalOfRanks, CountsAreThoseOfEveryMethod) {
    for (const Method method :
         {Method::magnitude, Method::wanda, Method::sparsegpt, Method::rgs, Method::ro, Method::wanda_plus_plus,
          Method{Score::rgs, Compensation::sparsegpt, Optimization::regional}}) {
        expect_equal_counts(problem_.options(method), name_of(method));
    }
}

TEST_F(RehearsalOfRanks, CountsAreThoseOfMiniBatches) {
    const std::vector<std::size_t> batches =
        test_device_is_gpu() ? std::vector<std::size_t>{4} : std::vector<std::size_t>{2, 4, 6};
    for (const std::size_t batch : batches) {
        PruneOptions options = problem_.options(Method::wanda_plus_plus);
        options.ro.batch = batch;
        expect_equal_counts(options, "batch " + std::to_string(batch));
    }
}

// Steps whose rest gives some rank more samples than a whole step does.
TEST_F(RehearsalOfRanks, CountsAreThoseOfRaggedMiniBatches) {
    PruneOptions options = problem_.options(Method::ro);
    options.ro.samples = test_device_is_gpu() ? 3 : 11;
    options.ro.batch = test_device_is_gpu() ? 2 : 6;
    expect_equal_counts(options, "ragged");
}

TEST_F(RehearsalOfRanks, CountsAreThoseOfTheSearch) {
    PruneOptions options = problem_.options(Method::wanda_plus_plus);
    options.ro.learning_rate.reset();
    if (test_device_is_gpu()) options.ro.rounds = options.ro.samples = 1;  // for each of nine rates
    expect_equal_counts(options, "search");
}

TEST_F(RehearsalOfRanks, CountsAreThoseOfHiddenStatesInHostMemory) {
    problem_.place = StoragePlace::host;
    const std::vector<std::size_t> batches =
        test_device_is_gpu() ? std::vector<std::size_t>{4} : std::vector<std::size_t>{1, 4};
    for (const std::size_t batch : batches) {
        PruneOptions options = problem_.options(Method::wanda_plus_plus);
        options.ro.batch = batch;
        expect_equal_counts(options, "host memory, batch " + std::to_string(batch));
    }
}

}  // namespace
}  // namespace espalier
