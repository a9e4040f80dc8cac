#pragma once
/// The threads of the block that runs, which of them can go on, and which of those does.

#include "tests/emulation/asynchronous_copies.h"
#include "tests/emulation/execution.h"
#include "tests/emulation/fiber.h"
#include "tests/emulation/settings.h"
#include "tests/emulation/thread_sanitizer.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace espalier::emulation {

inline constexpr int lanes_per_warp = 32;
inline constexpr unsigned most_warps = 32;
inline constexpr unsigned most_threads = most_warps * lanes_per_warp;

/// The meeting point of the lanes of one mask. Values are buffered twice: a lane that overtakes the others by one
/// meeting cannot overwrite what they have not read, and by two it cannot overtake them.
struct WarpExchange {
    std::uint32_t mask = 0;
    std::uint32_t arrived = 0;
    unsigned generation = 0;
    Place place{};
    std::array<HappensBefore, 2> met;
    alignas(most_exchanged_bytes) std::array<std::array<std::byte, lanes_per_warp * most_exchanged_bytes>, 2> values;

    explicit WarpExchange(std::uint32_t lanes) : mask(lanes) {
        for (auto& buffer : values) buffer.fill(std::byte{0xff});
    }
};

struct Warp;

struct Thread {
    uint3 index{};
    int lane = 0;
    Warp* warp = nullptr;
    Fiber* fiber = nullptr;  ///< null until it starts and after it returned
    WarpExchange* exchange = nullptr;
    const Place* waits_at = nullptr;
    AsynchronousCopies copies;
};

struct Warp {
    std::array<Thread, lanes_per_warp> threads;
    std::uint32_t existing = 0;
    std::uint32_t runnable = 0;
    std::uint32_t position = 0;  ///< the warp's bit in the order of the block's warps
    WarpExchange whole{all_lanes_of_warp};
    std::vector<std::unique_ptr<WarpExchange>> partial;

    /// Of a part of the lanes.
    WarpExchange& exchange_of(std::uint32_t mask);
};

/// One block after another, all of one shape.
class ThreadBlock {
  public:
    /// Prepares for the blocks of a launch.
    void shape(dim3 threads, Order order, std::uint64_t seed);
    /// Every thread of the block can start.
    void start();
    /// The thread that runs next, which is not runnable any more; null when all have returned or wait.
    Thread* choose();
    /// A runnable thread is going to run.
    void take(Thread& thread);
    void make_runnable(Warp& warp, std::uint32_t lanes);
    void make_all_runnable();

    unsigned threads() const { return threads_; }
    unsigned warps() const { return (threads_ + lanes_per_warp - 1) / lanes_per_warp; }
    Warp& warp(unsigned number) { return warps_[number]; }
    /// Whether the last thread to arrive at a meeting point goes on at once: one switch less.
    bool last_goes_on() const { return order_ == Order::forward; }
    /// The block that runs as number `turn` of `blocks`.
    std::uint64_t block_of_turn(std::uint64_t turn, std::uint64_t blocks);

  private:
    std::uint64_t draw();
    int draw_bit(std::uint32_t bits);

    std::array<Warp, most_warps> warps_;
    std::array<Warp*, most_warps> in_order_{};
    std::uint32_t runnable_warps_ = 0;  ///< by position
    unsigned threads_ = 0;
    Order order_ = Order::forward;
    std::uint64_t random_state_ = 1;
    std::uint64_t first_block_ = 0;
};

}  // namespace espalier::emulation
