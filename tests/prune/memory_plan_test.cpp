// Counted memory against what a device really gave out, and the choice of the place.
#include "src/prune/memory_plan.h"

#include "tests/support/expect.h"
#include "tests/support/prune_problem.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using namespace support;

constexpr Method methods[] = {Method::magnitude, Method::wanda, Method::rgs, Method::ro, Method::wanda_plus_plus};

MemoryNeeds needs_of(const PruneProblem& problem, const PruneOptions& options) {
    MemoryNeeds needs{
        options, problem.config, problem.layout, {DType::f32, DType::f32, false, Passes::forward_and_backward}};
    needs.samples = problem.samples;
    needs.shards = buffers_of_sum(std::vector<std::size_t>{0, options.shards}, 0);
    return needs;
}

TEST(MemoryPlan, IsWhatTheDeviceGivesOut) {
    const PruneProblem problem("mistral", 24, 30);
    for (const Method method : methods) {
        for (const std::size_t batch : {1U, 4U}) {
            PruneOptions options = problem.options(method);
            options.ro.batch = batch;
            const MemoryPlan plan = plan_memory(needs_of(problem, options), std::size_t{1} << 40);
            const auto measured = static_cast<double>(problem.prune_alone(options).report.peak_bytes);
            // On a CPU a gradient panel is not the device's, and attention's gradients of all heads are.
            EXPECT_NEAR(static_cast<double>(plan.total()) / measured, 1.0, 0.25)
                << name_of(method) << ": " << plan.text();
            EXPECT_EQ(plan.hidden_states, StoragePlace::device);
        }
    }
}

TEST(MemoryPlan, HiddenStatesMoveOutWhenTheyDoNotFit) {
    const PruneProblem problem("mistral", 24, 30);
    const PruneOptions options = problem.options(Method::wanda_plus_plus);
    const MemoryNeeds needs = needs_of(problem, options);
    const std::size_t whole = plan_memory(needs, std::size_t{1} << 40).total();
    EXPECT_EQ(plan_memory(needs, whole).hidden_states, StoragePlace::device);
    const MemoryPlan smaller = plan_memory(needs, whole - 1);
    EXPECT_EQ(smaller.hidden_states, StoragePlace::host);
    EXPECT_LT(smaller.total(), whole);
    EXPECT_EQ(plan_memory(needs, smaller.total()).hidden_states, StoragePlace::host);
    expect_error(ExitStatus::resources, {"hidden states in host memory", "weights", "--gpu-memory"},
                 [&] { static_cast<void>(plan_memory(needs, smaller.total() - 1)); });
}

TEST(MemoryPlan, ShardsOfARankDecideTheSumsOfTheGradient) {
    const PruneProblem problem;
    const PruneOptions options = problem.options(Method::rgs);
    MemoryNeeds needs = needs_of(problem, options);
    const auto total = [&](std::size_t shards) {
        needs.shards = buffers_of_sum(std::vector<std::size_t>{0, shards}, 0);
        return plan_memory(needs, std::size_t{1} << 40).total();
    };
    const std::size_t one = 4 * problem.layout.weights();
    EXPECT_GE(total(2), total(1));
    EXPECT_EQ(total(5), total(4));
    EXPECT_EQ(total(8) - total(4), one);
    EXPECT_EQ(total(16) - total(8), one);
}

}  // namespace
}  // namespace espalier
