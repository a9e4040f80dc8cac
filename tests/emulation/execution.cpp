// What launches and kernels call (execution.h), for the scheduler of the calling OS thread.
#include "tests/emulation/execution.h"

#include "tests/emulation/failure.h"
#include "tests/emulation/scheduler.h"

#include <mutex>

namespace espalier::emulation {

namespace {

void check_launch(dim3 grid, dim3 block, std::size_t dynamic_shared_bytes) {
    const auto inside = [](dim3 sizes, unsigned x, unsigned y, unsigned z) {
        return sizes.x >= 1 && sizes.x <= x && sizes.y >= 1 && sizes.y <= y && sizes.z >= 1 && sizes.z <= z;
    };
    const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
    if (!inside(grid, 0x7fffffffU, 65535, 65535) || !inside(block, 1024, 1024, 64) || threads > most_threads) {
        fail("a GPU refuses a grid of " + written(uint3{grid.x, grid.y, grid.z}) + " blocks of " +
             written(uint3{block.x, block.y, block.z}) + " threads");
    }
    if (dynamic_shared_bytes > settings().shared_memory) {
        fail("a GPU refuses " + std::to_string(dynamic_shared_bytes) + " bytes of shared memory; " +
             std::to_string(settings().shared_memory) + " are there");
    }
}

}  // namespace

void run_grid(dim3 grid, dim3 block, std::size_t dynamic_shared_bytes, const std::function<void()>& thread) {
    check_launch(grid, block, dynamic_shared_bytes);
    if (Scheduler::running != nullptr) fail("a kernel launches a kernel");
    static std::mutex one_grid_at_a_time;  // the shared arrays of kernels belong to the program
    const std::lock_guard lock(one_grid_at_a_time);
    static thread_local Scheduler scheduler;
    Scheduler::running = &scheduler;
    scheduler.run_grid(grid, block, dynamic_shared_bytes, thread);
    Scheduler::running = nullptr;
}

void* dynamic_shared() {
    return Scheduler::running->dynamic_shared();
}

void* shared_memory_of(SharedArraySite& site, std::size_t bytes) {
    return Scheduler::running->shared_memory_of(site, bytes);
}

}  // namespace espalier::emulation
