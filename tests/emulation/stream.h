#pragma once
/// Streams: queues of work. Eager, work runs as soon as what it waits for has happened; lazy, only when the host waits
/// for it, or for something that comes after it.

#include "tests/emulation/execution.h"

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>

namespace espalier::emulation {

/// Does what can be done without waiting, and says whether it is finished; called again until it is.
using Work = std::function<bool()>;

/// A place in a stream that an event has been recorded at.
struct EventPoint {
    cudaStream_t stream = nullptr;
    std::uint64_t position = 0;
    bool passed = false;
};

}  // namespace espalier::emulation

/// What a cudaStream_t points to.
struct CUstream_st {
    std::deque<espalier::emulation::Work> queue;
    std::uint64_t put = 0;               ///< pieces of work so far
    std::uint64_t done = 0;              ///< of these
    std::uint64_t peers_wait_until = 0;  ///< other ranks wait for this much of it
    bool in_work = false;
    bool destroyed = false;  ///< goes when its work is done
};

/// What a cudaEvent_t points to.
struct CUevent_st {
    std::shared_ptr<espalier::emulation::EventPoint> point;  ///< null until it is recorded
};

namespace espalier::emulation {

cudaStream_t make_stream();
void destroy_stream(cudaStream_t stream);
bool stream_exists(cudaStream_t stream);

/// `peers_wait`: a piece that other ranks take part in; it does not stay undone while this rank waits for others.
void enqueue_work(cudaStream_t stream, Work work, bool peers_wait = false);

std::shared_ptr<EventPoint> record_event(cudaStream_t stream);
void wait_for_event(cudaStream_t stream, const std::shared_ptr<EventPoint>& point);

/// The host asks whether a point has been passed, which lets the work before it run.
bool has_passed(EventPoint& point);
/// The host waits for everything in a stream, or in all.
void wait_for_stream(cudaStream_t stream);
void wait_for_all_streams();
/// The host waits for something else, for example for a message: eager streams, and what peers wait for, go on.
void drive_streams();

}  // namespace espalier::emulation
