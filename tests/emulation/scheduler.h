#pragma once
/// Runs grids: block after block, each thread of a block on a fiber. A thread runs until it has to wait for others; a
/// fiber whose thread has returned takes the next thread, so that kernels without meeting points never switch.

#include "tests/emulation/thread_block.h"

#include <string>

namespace espalier::emulation {

/// The meeting point of all threads of a block.
struct BlockBarrier {
    unsigned arrived = 0;
    unsigned generation = 0;
    Place place{};
    std::array<int, 2> votes{};  ///< by generation, as the values of a WarpExchange
    std::array<HappensBefore, 2> met;
};

/// Of one OS thread.
class Scheduler {
  public:
    /// Null while no kernel runs.
    static constinit thread_local Scheduler* running;

    Scheduler() { fibers_.reserve(most_threads); }

    void run_grid(dim3 grid, dim3 block, std::size_t dynamic_shared_bytes, const std::function<void()>& thread);
    int wait_for_block(bool predicate, const Place& place);
    std::byte* begin_exchange(std::uint32_t mask, const Place& place, bool whole_warp);
    void wait_for_lanes();
    std::uint32_t existing_lanes(std::uint32_t mask) const { return mask & current_->warp->existing; }
    AsynchronousCopies& copies_of_thread() { return current_->copies; }
    void* dynamic_shared() const { return dynamic_shared_; }
    void* shared_memory_of(SharedArraySite& site, std::size_t bytes);

  private:
    static void run_threads();

    void run_block();
    void become(Thread& thread);
    void run_current();
    void continue_elsewhere(const Place& waits_at);
    WarpExchange& exchange_of(Warp& warp, std::uint32_t mask);
    Fiber& fiber_for(const Thread& thread);
    void poison_shared_memory();
    void check_shared_memory() const;
    [[noreturn]] void fail_here(const std::string& sentence) const;
    [[noreturn]] void fail_in_deadlock();

    ThreadBlock block_;
    BlockBarrier barrier_;
    Thread* current_ = nullptr;
    const std::function<void()>* kernel_ = nullptr;
    unsigned returned_ = 0;

    Fiber main_;
    std::vector<std::unique_ptr<Fiber>> fibers_;
    std::array<Fiber*, most_threads> idle_{};
    unsigned idle_count_ = 0;

    std::byte* dynamic_shared_ = nullptr;
    std::size_t dynamic_shared_bytes_ = 0;
    std::vector<SharedArraySite*> shared_arrays_;  ///< that this launch has used
    std::uint64_t launch_ = 0;
    HappensBefore begun_, ended_;
};

/// A thread's or a block's index, for messages.
std::string written(const uint3& index);
std::string written(const Place& place);

}  // namespace espalier::emulation
