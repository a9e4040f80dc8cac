// What launches and kernels call (execution.h), for the scheduler of the calling OS thread.
#include "tests/emulation/execution.h"

#include "tests/emulation/failure.h"
#include "tests/emulation/scheduler.h"

#include <mutex>

namespace espalier::emulation {

namespace {

/// Of the OS thread; null before its first launch.
thread_local std::optional<Scheduler> scheduler_of_thread;
constinit thread_local Scheduler* scheduler = nullptr;

Scheduler& running_scheduler(const Place& place) {
    if (scheduler == nullptr) fail(written(place) + " was called outside a kernel");
    return *scheduler;
}

void check_launch(dim3 grid, dim3 block, std::size_t dynamic_shared_bytes) {
    const auto inside = [](dim3 sizes, unsigned x, unsigned y, unsigned z) {
        return sizes.x >= 1 && sizes.x <= x && sizes.y >= 1 && sizes.y <= y && sizes.z >= 1 && sizes.z <= z;
    };
    const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
    if (!inside(grid, 0x7fffffffU, 65535, 65535) || !inside(block, 1024, 1024, 64) || threads > most_threads) {
        fail("a GPU refuses a grid of " + written(uint3{grid.x, grid.y, grid.z}) + " blocks of " +
             written(uint3{block.x, block.y, block.z}) + " threads");
    }
    if (dynamic_shared_bytes > most_shared_bytes) {
        fail("a GPU refuses " + std::to_string(dynamic_shared_bytes) + " bytes of shared memory; " +
             std::to_string(most_shared_bytes) + " are there");
    }
}

}  // namespace

void run_grid(dim3 grid, dim3 block, std::size_t dynamic_shared_bytes, const std::function<void()>& thread) {
    static std::mutex one_grid_at_a_time;  // the shared arrays of kernels belong to the program
    const std::lock_guard lock(one_grid_at_a_time);
    check_launch(grid, block, dynamic_shared_bytes);
    if (!scheduler_of_thread) scheduler_of_thread.emplace();
    scheduler = &*scheduler_of_thread;
    scheduler->run_grid(grid, block, dynamic_shared_bytes, thread);
    scheduler = nullptr;
}

void* dynamic_shared() {
    return running_scheduler({"dynamic_shared", "a kernel", 0}).dynamic_shared();
}

void* shared_memory_of(SharedArraySite& site, std::size_t bytes) {
    return running_scheduler({"ESPALIER_SHARED_ARRAY", "a kernel", 0}).shared_memory_of(site, bytes);
}

int wait_for_block(bool predicate, Place place) {
    return running_scheduler(place).wait_for_block(predicate, place);
}

std::byte* begin_exchange(std::uint32_t mask, Place place, bool whole_warp) {
    return running_scheduler(place).begin_exchange(mask, place, whole_warp);
}

void wait_for_lanes() {
    scheduler->wait_for_lanes();
}

std::uint32_t existing_lanes(std::uint32_t mask) {
    return scheduler->existing_lanes(mask);
}

}  // namespace espalier::emulation
