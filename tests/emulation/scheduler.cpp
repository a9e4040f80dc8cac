#include "tests/emulation/scheduler.h"

#include "tests/emulation/exact_memory.h"
#include "tests/emulation/failure.h"

#include <atomic>
#include <cstdlib>

constinit thread_local uint3 threadIdx{};
constinit thread_local uint3 blockIdx{};
constinit thread_local dim3 blockDim{};
constinit thread_local dim3 gridDim{};

namespace espalier::emulation {

constinit thread_local int lane_of_thread = 0;
constinit thread_local Scheduler* Scheduler::running = nullptr;

// ---- grids and blocks

void Scheduler::run_grid(dim3 grid, dim3 block, std::size_t dynamic_shared_bytes, const std::function<void()>& thread) {
    static std::atomic<std::uint64_t> launches{0};
    launch_ = ++launches;
    block_.shape(block, settings().order, settings().seed + launch_);
    kernel_ = &thread;
    blockDim = block;
    gridDim = grid;
    dynamic_shared_bytes_ = dynamic_shared_bytes;
    if (dynamic_shared_bytes > 0) dynamic_shared_ = allocate_poisoned(dynamic_shared_bytes, 128);
    const std::uint64_t blocks = std::uint64_t{grid.x} * grid.y * grid.z;
    for (std::uint64_t turn = 0; turn < blocks; ++turn) {
        const std::uint64_t number = block_.block_of_turn(turn, blocks), row = number / grid.x;
        blockIdx = {static_cast<unsigned>(number % grid.x), static_cast<unsigned>(row % grid.y),
                    static_cast<unsigned>(row / grid.y)};
        if (turn > 0) poison_shared_memory();
        run_block();
        check_shared_memory();
    }
    std::free(dynamic_shared_);
    dynamic_shared_ = nullptr;
    shared_arrays_.clear();
}

void Scheduler::run_block() {
    returned_ = 0;
    block_.start();
    begun_.signal();
    Thread& first = *block_.choose();
    Fiber& fiber = fiber_for(first);
    become(first);
    first.fiber = &fiber;
    Fiber::switch_between(main_, fiber);
    ended_.await();
    current_ = nullptr;
}

void Scheduler::poison_shared_memory() {
    if (dynamic_shared_bytes_ > 0) poison(dynamic_shared_, dynamic_shared_bytes_);
    for (SharedArraySite* const site : shared_arrays_) poison(site->memory, site->bytes);
}

void Scheduler::check_shared_memory() const {
    const auto check = [](const std::byte* memory, std::size_t bytes, const char* what) {
        if (memory == nullptr || guard_is_intact(memory, bytes)) return;
        fail("block " + written(blockIdx) + " wrote behind the end of " + std::to_string(bytes) + " bytes of " + what);
    };
    check(dynamic_shared_, dynamic_shared_bytes_, "dynamic shared memory");
    for (const SharedArraySite* const site : shared_arrays_) check(site->memory, site->bytes, "a shared array");
}

void* Scheduler::shared_memory_of(SharedArraySite& site, std::size_t bytes) {
    if (site.launch != launch_) {
        // To thread sanitizer the launch itself provides the memory, as it does on a GPU, not the first thread to use
        // it.
        main_.impersonate();
        if (site.memory == nullptr) {
            site.memory = allocate_poisoned(bytes, 128);
            site.bytes = bytes;
        } else {
            poison(site.memory, site.bytes);
        }
        site.launch = launch_;
        shared_arrays_.push_back(&site);
        begun_.signal();
        current_->fiber->impersonate();
    }
    begun_.await();
    return site.memory;
}

// ---- threads

/// What every fiber does: runs the current thread, then others until none is left.
void Scheduler::run_threads() {
    Fiber::arrive();
    Scheduler& self = *running;
    for (;;) {
        Fiber& fiber = *self.current_->fiber;
        self.run_current();
        Thread* const next = self.block_.choose();
        if (next != nullptr && next->fiber == nullptr && !thread_sanitizer) {
            self.become(*next);
            next->fiber = &fiber;
            continue;
        }
        if (!thread_sanitizer) self.idle_[self.idle_count_++] = &fiber;
        if (next != nullptr) {
            if (next->fiber == nullptr) next->fiber = &self.fiber_for(*next);
            self.become(*next);
            Fiber::switch_between(fiber, *next->fiber);
        } else {
            if (self.returned_ < self.block_.threads()) self.fail_in_deadlock();
            Fiber::switch_between(fiber, self.main_);
        }
    }
}

void Scheduler::run_current() {
    begun_.await();
    current_->copies.reset();
    (*kernel_)();
    ended_.signal();
    current_->fiber = nullptr;
    ++returned_;
}

void Scheduler::become(Thread& thread) {
    current_ = &thread;
    threadIdx = thread.index;
    lane_of_thread = thread.lane;
}

/// An idle fiber. Under thread sanitizer every thread of the block has its own: on a shared one, the end of a thread
/// would seem to happen before the beginning of the next.
Fiber& Scheduler::fiber_for(const Thread& thread) {
    if (!thread_sanitizer && idle_count_ > 0) return *idle_[--idle_count_];
    const unsigned number = thread.index.x + blockDim.x * (thread.index.y + blockDim.y * thread.index.z);
    const std::size_t needed = thread_sanitizer ? number + std::size_t{1} : fibers_.size() + 1;
    while (fibers_.size() < needed) {
        fibers_.push_back(std::make_unique<Fiber>(&Scheduler::run_threads, static_cast<unsigned>(fibers_.size())));
    }
    return *fibers_[needed - 1];
}

/// The current thread waits until something has made it runnable and it has been chosen.
void Scheduler::continue_elsewhere(const Place& waits_at) {
    Thread& self = *current_;
    self.waits_at = &waits_at;
    Thread* const next = block_.choose();
    if (next == nullptr) fail_in_deadlock();
    if (next == &self) return;
    if (next->fiber == nullptr) next->fiber = &fiber_for(*next);
    become(*next);
    Fiber::switch_between(*self.fiber, *next->fiber);
}

}  // namespace espalier::emulation
