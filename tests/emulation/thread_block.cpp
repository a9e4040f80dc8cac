#include "tests/emulation/thread_block.h"

#include <algorithm>
#include <bit>

namespace espalier::emulation {

WarpExchange& Warp::exchange_of(std::uint32_t mask) {
    for (const auto& exchange : partial) {
        if (exchange->mask == mask) return *exchange;
    }
    return *partial.emplace_back(std::make_unique<WarpExchange>(mask));
}

void ThreadBlock::shape(dim3 threads, Order order, std::uint64_t seed) {
    threads_ = threads.x * threads.y * threads.z;
    order_ = order;
    random_state_ = seed * 0x9e3779b97f4a7c15U | 1U;
    first_block_ = draw();
    for (unsigned number = 0; number < threads_; ++number) {
        Warp& warp = warps_[number / lanes_per_warp];
        Thread& thread = warp.threads[number % lanes_per_warp];
        thread.index = {number % threads.x, number / threads.x % threads.y, number / threads.x / threads.y};
        thread.lane = static_cast<int>(number % lanes_per_warp);
        thread.warp = &warp;
    }
    for (unsigned number = 0; number < warps(); ++number) {
        const unsigned lanes = std::min<unsigned>(lanes_per_warp, threads_ - number * lanes_per_warp);
        warps_[number].existing = all_lanes_of_warp >> (lanes_per_warp - static_cast<int>(lanes));
        in_order_[number] = &warps_[order_ == Order::reverse ? warps() - 1 - number : number];
    }
}

void ThreadBlock::start() {
    if (order_ == Order::greedy) {
        for (unsigned i = warps() - 1; i > 0; --i) std::swap(in_order_[i], in_order_[draw() % (i + 1)]);
    }
    for (unsigned i = 0; i < warps(); ++i) in_order_[i]->position = 1U << i;
    make_all_runnable();
}

Thread* ThreadBlock::choose() {
    if (runnable_warps_ == 0) return nullptr;
    const bool random = order_ == Order::random;
    Warp& warp =
        *in_order_[static_cast<unsigned>(random ? draw_bit(runnable_warps_) : std::countr_zero(runnable_warps_))];
    const int lane = random                     ? draw_bit(warp.runnable)
                     : order_ == Order::reverse ? std::bit_width(warp.runnable) - 1
                                                : std::countr_zero(warp.runnable);
    Thread& thread = warp.threads[static_cast<unsigned>(lane)];
    take(thread);
    return &thread;
}

void ThreadBlock::take(Thread& thread) {
    Warp& warp = *thread.warp;
    warp.runnable &= ~(1U << thread.lane);
    if (warp.runnable == 0) runnable_warps_ &= ~warp.position;
}

void ThreadBlock::make_runnable(Warp& warp, std::uint32_t lanes) {
    warp.runnable |= lanes;
    if (lanes != 0) runnable_warps_ |= warp.position;
}

void ThreadBlock::make_all_runnable() {
    for (unsigned number = 0; number < warps(); ++number) make_runnable(warps_[number], warps_[number].existing);
}

std::uint64_t ThreadBlock::block_of_turn(std::uint64_t turn, std::uint64_t blocks) {
    switch (order_) {
        case Order::forward:
            return turn;
        case Order::reverse:
            return blocks - 1 - turn;
        default:
            return (first_block_ % blocks + turn) % blocks;
    }
}

/// Marsaglia's xorshift.
std::uint64_t ThreadBlock::draw() {
    random_state_ ^= random_state_ << 13;
    random_state_ ^= random_state_ >> 7;
    random_state_ ^= random_state_ << 17;
    return random_state_;
}

/// One of the bits: the next at or after a drawn one.
int ThreadBlock::draw_bit(std::uint32_t bits) {
    const int start = static_cast<int>(draw() >> 32 & 31U);
    return (std::countr_zero(std::rotr(bits, start)) + start) % lanes_per_warp;
}

}  // namespace espalier::emulation
