// Memory as planned against what a device really gives out, and the choice of the place.
#include "src/plan/memory_plan.h"

#include "src/plan/run_plan.h"
#include "tests/support/expect.h"
#include "tests/support/prune_problem.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace espalier {
namespace {

using namespace support;

constexpr Method methods[] = {Method::magnitude,
                              Method::wanda,
                              Method::sparsegpt,
                              Method::rgs,
                              Method::ro,
                              Method::wanda_plus_plus,
                              {Score::rgs, Compensation::sparsegpt, Optimization::regional},
                              Method::reconstruct};

/// A run of the problem's blocks, all float32.
struct Planned {
    const PruneProblem& problem;
    PruneOptions options;
    BlockStorage storage{DType::f32, std::vector<DType>(problem.layout.vectors().size(), DType::f32)};

    MemoryPlan of_rank(int rank, std::size_t ranks, const DeviceModel& device) const {
        const Topology topology(ranks, problem.config.blocks.size(), options.block_groups, options.samples,
                                options.shards);
        return plan_memory({.options = options,
                            .model = {problem.config, problem.layout, storage},
                            .topology = topology,
                            .rank = rank},
                           device);
    }
    MemoryPlan of_run(std::size_t ranks, const DeviceModel& device) const {
        return plan_run({problem.config, problem.layout, storage}, options, ranks, device).memory;
    }
};

DeviceModel gpu_of(std::size_t bytes) {
    DeviceModel model = device_model("h100");
    model.memory_bytes = bytes;
    model.reserved_bytes = 0;
    return model;
}

std::size_t bytes_of_item(const MemoryPlan& plan, const std::string& name) {
    std::size_t bytes = 0;
    for (const MemoryItem& item : plan.items) bytes += item.name == name ? item.bytes : 0;
    return bytes;
}

void expect_what_the_device_gives_out(const PruneProblem& problem, const PruneOptions& options,
                                      const std::string& what) {
    const auto device = make_test_device(1);
    const MemoryPlan plan = Planned{problem, options}.of_rank(0, 1, counting_model(*device));
    const std::size_t measured = problem.prune_alone(options).report.peak_bytes;
    EXPECT_EQ(plan.hidden_states, StoragePlace::device);
    if (!test_device_is_gpu()) {
        EXPECT_EQ(plan.total(), measured) << what << ": " << describe(plan.items);
        return;
    }
    // A solver's scratch is a guess from above, and partial sums are as many as they may be.
    EXPECT_GE(plan.total(), measured) << what;
    EXPECT_LE(static_cast<double>(plan.total()), 1.25 * static_cast<double>(measured) + 16384) << what;
}

TEST(MemoryPlan, IsWhatTheDeviceGivesOut) {
    const bool on_gpu = test_device_is_gpu();
    const PruneProblem problem("mistral", on_gpu ? 8 : 24, on_gpu ? 6 : 30);
    for (const Method method : methods) {
        for (const std::size_t batch : {1U, 4U}) {
            if (batch > 1 && !method.optimises()) continue;
            // An emulated GPU takes its time; rehearsal_ranks_test has the others.
            if (on_gpu && method != Method(Method::sparsegpt) && !method.optimises()) continue;
            PruneOptions options = problem.options(method);
            options.ro.batch = batch;
            expect_what_the_device_gives_out(problem, options, name_of(method) + ", batch " + std::to_string(batch));
        }
    }
}

TEST(MemoryPlan, CountsWhatOtherFamiliesKeep) {
    for (const char* const family : {"qwen2", "qwen3", "olmo2", "smollm3", "phi3-mini"}) {
        // Long samples, so that activations are most of it.
        const PruneProblem problem(family, 2, test_device_is_gpu() ? 40 : 400);
        PruneOptions options = problem.options(Method::rgs);
        options.shards = 1;
        expect_what_the_device_gives_out(problem, options, family);
    }
}

TEST(MemoryPlan, CountsTheSearchOfTheRate) {
    const PruneProblem problem("mistral", 12, 6);
    PruneOptions options = problem.options(Method::ro);  // which needs the most while it optimises
    const auto plan = [&] { return Planned{problem, options}.of_rank(0, 1, device_model("cpu")); };
    const MemoryPlan given = plan();
    options.ro.learning_rate.reset();
    const MemoryPlan searched = plan();
    EXPECT_GT(searched.total(), given.total());
    EXPECT_EQ(bytes_of_item(searched, "first weights during the search"), 4 * problem.layout.weights());
}

TEST(MemoryPlan, HiddenStatesMoveOutWhenTheyDoNotFit) {
    const PruneProblem problem("mistral", 24, 30);
    const Planned planned{problem, problem.options(Method::wanda_plus_plus)};
    const MemoryPlan whole = planned.of_rank(0, 1, gpu_of(std::size_t{1} << 40));
    EXPECT_EQ(bytes_of_item(whole, "hidden states"), 4 * problem.x.size());
    EXPECT_EQ(planned.of_rank(0, 1, gpu_of(whole.total())).hidden_states, StoragePlace::device);
    const MemoryPlan smaller = planned.of_rank(0, 1, gpu_of(whole.total() - 1));
    EXPECT_EQ(smaller.hidden_states, StoragePlace::host);
    EXPECT_LT(smaller.total(), whole.total());
    EXPECT_EQ(bytes_of_item(smaller, "hidden states"), 0U);
    EXPECT_EQ(planned.of_rank(0, 1, gpu_of(smaller.total())).hidden_states, StoragePlace::host);
    expect_error(ExitStatus::resources, {"hidden states in host memory", "weights", "--gpu-memory"},
                 [&] { static_cast<void>(planned.of_rank(0, 1, gpu_of(smaller.total() - 1))); });
}

TEST(MemoryPlan, OfARunIsThatOfItsNeediestRank) {
    const PruneProblem problem("mistral", 13, 6);
    const DeviceModel gpu = gpu_of(std::size_t{1} << 40);
    struct Case {
        std::size_t ranks, groups, batch, shards = 5;
    };
    for (const auto& [ranks, groups, batch, shards] :
         {Case{1, 1, 1}, Case{3, 1, 1}, Case{5, 1, 4}, Case{6, 2, 3}, Case{1, 2, 1}, Case{9, 1, 6}, Case{5, 1, 13, 13},
          Case{6, 1, 4, 11}, Case{3, 1, 5, 7}}) {
        for (const Method method : {Method::sparsegpt, Method::wanda_plus_plus}) {
            PruneOptions options = problem.options(method);
            options.block_groups = groups;
            options.ro.batch = batch;
            options.ro.samples = 13;
            options.shards = shards;
            const Planned planned{problem, options};
            std::size_t most = 0;
            for (std::size_t rank = 0; rank < ranks; ++rank) {
                most = std::max(most, planned.of_rank(static_cast<int>(rank), ranks, gpu).total());
            }
            EXPECT_EQ(planned.of_run(ranks, gpu).total(), most)
                << name_of(method) << " on " << ranks << " ranks in " << groups << " groups, batch " << batch;
        }
    }
}

}  // namespace
}  // namespace espalier
