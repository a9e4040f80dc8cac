#pragma once
/// Elapsed time on the monotonic clock: a changed wall clock has no effect.

#include <chrono>

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
