#include "tests/emulation/stream.h"

#include "tests/emulation/failure.h"
#include "tests/emulation/gpu_memory.h"
#include "tests/emulation/settings.h"

#include <sched.h>

#include <algorithm>
#include <mutex>
#include <vector>

namespace espalier::emulation {

namespace {

struct Streams {
    std::recursive_mutex mutex;
    std::vector<std::unique_ptr<CUstream_st>> all;
    bool driving = false;
};

/// Never destroyed: other objects of the program may use streams at its very end.
Streams& streams() {
    static Streams& the_streams = *new Streams;
    return the_streams;
}

/// Runs a stream's work up to a position as far as it goes. True when the position is reached.
bool advance(CUstream_st& stream, std::uint64_t position) {
    while (stream.done < position) {
        if (stream.in_work) return false;  // work that waits for its own stream, through others
        stream.in_work = true;
        const bool finished = stream.queue.front()();
        stream.in_work = false;
        if (!finished) return false;
        stream.queue.pop_front();
        ++stream.done;
    }
    return true;
}

bool reach(EventPoint& point) {
    if (!point.passed) advance(*point.stream, point.position);
    return point.passed;
}

/// How far a stream runs while the host does something else.
std::uint64_t target_of(const CUstream_st& stream) {
    return settings().lazy_streams ? stream.peers_wait_until : stream.put;
}

void wait(const std::function<bool()>& has_happened) {
    for (;;) {
        {
            const std::lock_guard lock(streams().mutex);
            if (has_happened()) return;
            drive_streams();
        }
        sched_yield();
    }
}

}  // namespace

cudaStream_t make_stream() {
    const std::lock_guard lock(streams().mutex);
    return streams().all.emplace_back(std::make_unique<CUstream_st>()).get();
}

bool stream_exists(cudaStream_t stream) {
    const std::lock_guard lock(streams().mutex);
    return std::any_of(streams().all.begin(), streams().all.end(),
                       [&](const auto& known) { return known.get() == stream && !known->destroyed; });
}

void destroy_stream(cudaStream_t stream) {
    const std::lock_guard lock(streams().mutex);
    stream->destroyed = true;
    advance(*stream, stream->put);
    drive_streams();
}

void enqueue_work(cudaStream_t stream, Work work, bool peers_wait) {
    const std::lock_guard lock(streams().mutex);
    if (!stream_exists(stream)) fail("work for a stream that is not there; the default stream is not emulated");
    stream->queue.push_back(std::move(work));
    ++stream->put;
    if (peers_wait) stream->peers_wait_until = stream->put;
    if (!settings().lazy_streams) drive_streams();
}

void enqueue(cudaStream_t stream, std::function<void()> work) {
    enqueue_work(stream, [work = std::move(work)] {
        const DeviceAccess access;
        work();
        return true;
    });
}

std::shared_ptr<EventPoint> record_event(cudaStream_t stream) {
    const std::lock_guard lock(streams().mutex);
    auto point = std::make_shared<EventPoint>();
    point->stream = stream;
    point->position = stream->put + 1;
    enqueue_work(stream, [point] { return point->passed = true; });
    return point;
}

void wait_for_event(cudaStream_t stream, const std::shared_ptr<EventPoint>& point) {
    enqueue_work(stream, [point] { return reach(*point); });
}

bool has_passed(EventPoint& point) {
    const std::lock_guard lock(streams().mutex);
    if (!reach(point)) drive_streams();
    return point.passed;
}

void wait_for_stream(cudaStream_t stream) {
    wait([&] { return advance(*stream, stream->put); });
}

void wait_for_all_streams() {
    wait([] {
        bool all = true;
        for (const auto& stream : streams().all) all = advance(*stream, stream->put) && all;
        return all;
    });
}

void drive_streams() {
    const std::lock_guard lock(streams().mutex);
    if (streams().driving) return;
    streams().driving = true;
    std::uint64_t before = 0, after = 0;
    do {  // the progress of one may let another go on
        before = after = 0;
        for (const auto& stream : streams().all) {
            before += stream->done;
            advance(*stream, target_of(*stream));
        }
        for (const auto& stream : streams().all) after += stream->done;
    } while (after > before);
    std::erase_if(streams().all, [](const auto& stream) { return stream->destroyed && stream->queue.empty(); });
    streams().driving = false;
}

}  // namespace espalier::emulation
