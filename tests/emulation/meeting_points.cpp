// The meeting points of a block's threads and of a warp's lanes, and what is said when they never meet.
#include "tests/emulation/failure.h"
#include "tests/emulation/scheduler.h"

namespace espalier::emulation {

std::string written(const uint3& index) {
    return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " + std::to_string(index.z) + ")";
}

std::string written(const Place& place) {
    return std::string(place.operation) + " at " + place.file + ":" + std::to_string(place.line);
}

int Scheduler::wait_for_block(bool predicate, const Place& place) {
    if (barrier_.arrived == 0) {
        barrier_.place = place;
    } else if (!(barrier_.place == place)) {
        fail_here("divergent barrier: " + written(place) + " while others wait in " + written(barrier_.place));
    }
    const unsigned buffer = barrier_.generation & 1U;
    barrier_.met[buffer].signal();
    barrier_.votes[buffer] += predicate ? 1 : 0;
    if (++barrier_.arrived == block_.threads()) {
        barrier_.arrived = 0;
        barrier_.votes[buffer ^ 1U] = 0;
        ++barrier_.generation;
        block_.make_all_runnable();
        if (block_.last_goes_on()) {
            block_.take(*current_);
        } else {
            continue_elsewhere(barrier_.place);
        }
    } else {
        continue_elsewhere(barrier_.place);
    }
    barrier_.met[buffer].await();
    return barrier_.votes[buffer];
}

WarpExchange& Scheduler::exchange_of(Warp& warp, std::uint32_t mask) {
    if (mask == all_lanes_of_warp) return warp.whole;
    main_.impersonate();  // to thread sanitizer no lane provides the memory
    WarpExchange& exchange = warp.exchange_of(mask);
    begun_.signal();
    current_->fiber->impersonate();
    begun_.await();
    return exchange;
}

std::byte* Scheduler::begin_exchange(std::uint32_t mask, const Place& place, bool whole_warp) {
    Thread& self = *current_;
    Warp& warp = *self.warp;
    if ((mask >> self.lane & 1U) == 0) fail_here(written(place) + ": the calling lane is not in the mask");
    if (whole_warp && warp.existing != all_lanes_of_warp) fail_here(written(place) + ": the warp has not 32 lanes");
    WarpExchange& exchange = exchange_of(warp, mask);
    if (exchange.arrived == 0) {
        exchange.place = place;
    } else if (!(exchange.place == place)) {
        fail_here("divergent lanes: " + written(place) + " while others wait in " + written(exchange.place));
    }
    self.exchange = &exchange;
    return exchange.values[exchange.generation & 1U].data();
}

void Scheduler::wait_for_lanes() {
    Thread& self = *current_;
    Warp& warp = *self.warp;
    WarpExchange& exchange = *self.exchange;
    HappensBefore& met = exchange.met[exchange.generation & 1U];
    const std::uint32_t own = 1U << self.lane, wanted = exchange.mask & warp.existing;
    met.signal();
    exchange.arrived |= own;
    if (exchange.arrived == wanted) {
        exchange.arrived = 0;
        ++exchange.generation;
        const bool goes_on = block_.last_goes_on();
        block_.make_runnable(warp, goes_on ? wanted & ~own : wanted);
        if (!goes_on) continue_elsewhere(exchange.place);
    } else {
        continue_elsewhere(exchange.place);
    }
    met.await();
}

// ---- failures

void Scheduler::fail_here(const std::string& sentence) const {
    fail(sentence + "; thread " + written(current_->index) + " of block " + written(blockIdx));
}

void Scheduler::fail_in_deadlock() {
    constexpr unsigned most_listed = 4;
    std::string list;
    unsigned waiting = 0;
    for (unsigned number = 0; number < block_.threads(); ++number) {
        const Thread& thread = block_.warp(number / lanes_per_warp).threads[number % lanes_per_warp];
        if (thread.fiber == nullptr || ++waiting > most_listed) continue;
        list += "\n  thread " + written(thread.index) + " waits in " + written(*thread.waits_at);
    }
    fail("deadlock in block " + written(blockIdx) + ": " + std::to_string(returned_) + " threads have returned, " +
         std::to_string(waiting) + " wait for lanes or threads that never come:" + list);
}

// ---- what kernels call

namespace {

Scheduler& scheduler_of(const Place& place) {
    if (Scheduler::running == nullptr) fail(written(place) + " was called outside a kernel");
    return *Scheduler::running;
}

}  // namespace

int wait_for_block(bool predicate, Place place) {
    return scheduler_of(place).wait_for_block(predicate, place);
}

std::byte* begin_exchange(std::uint32_t mask, Place place, bool whole_warp) {
    return scheduler_of(place).begin_exchange(mask, place, whole_warp);
}

void wait_for_lanes() {
    Scheduler::running->wait_for_lanes();
}

std::uint32_t existing_lanes(std::uint32_t mask) {
    return Scheduler::running->existing_lanes(mask);
}

}  // namespace espalier::emulation
