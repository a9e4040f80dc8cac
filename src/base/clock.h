#pragma once
/// Elapsed time on the monotonic clock: a changed wall clock has no effect. And clocks that a plan runs on.

#include <chrono>
#include <thread>

namespace espalier {

class Stopwatch {
  public:
    double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }
    /// Seconds since construction or the last lap; starts a new lap.
    double lap() {
        const double elapsed = seconds();
        start_ = std::chrono::steady_clock::now();
        return elapsed;
    }

  private:
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// What time it is, in seconds from some beginning, for work that is measured, rehearsed, or only counted.
class Clock {
  public:
    Clock() = default;
    Clock(const Clock&) = delete;
    Clock& operator=(const Clock&) = delete;
    virtual ~Clock() = default;
    virtual double now() const = 0;
    /// Returns when it is `time`; at once when that has passed.
    virtual void wait_until(double time) = 0;
};

/// The time that passes.
class RealClock final : public Clock {
  public:
    double now() const override { return since_.seconds(); }
    void wait_until(double time) override {
        // Sleeping overshoots by some 50 microseconds: the last of them are spent looking at the clock.
        constexpr double watched = 2e-4;
        if (const double left = time - now(); left > watched) {
            std::this_thread::sleep_for(std::chrono::duration<double>(left - watched));
        }
        while (now() < time) std::this_thread::yield();
    }

  private:
    Stopwatch since_;
};

/// Time that passes only when somebody says so.
class VirtualClock final : public Clock {
  public:
    double now() const override { return now_; }
    void wait_until(double time) override { now_ = now_ < time ? time : now_; }
    void advance(double seconds) { now_ += seconds; }

  private:
    double now_ = 0;
};

/// Seconds of one repetition of `work`, repeated for at least `at_least` seconds.
template <typename Work>
double seconds_of(const Work& work, double at_least) {
    const Stopwatch stopwatch;
    int repetitions = 0;
    do {
        work();
        ++repetitions;
    } while (stopwatch.seconds() < at_least);
    return stopwatch.seconds() / repetitions;
}

}  // namespace espalier
