#pragma once
/// What a person sees while a run goes on: one line a block, a live line on a terminal, a table at the end. Writes to
/// stderr on rank 0 and nothing elsewhere.

#include "src/base/clock.h"
#include "src/base/json.h"

#include <cstddef>
#include <string>

namespace espalier {

class Progress {
  public:
    /// `visible` on rank 0 only.
    explicit Progress(bool visible);

    /// The time to expect is that of what follows: something else took time before.
    void restart() {
        since_start_ = Stopwatch();
        last_step_ = 0;
    }
    /// One line, any time.
    void line(const std::string& text);
    /// Replaces the live line, on a terminal only.
    void live(const std::string& text);
    /// How far a command has come that writes nothing else: a live line on a terminal, elsewhere a line every ten
    /// seconds.
    void step(const std::string& text);
    /// A finished block: `metrics` as in metrics.json. `done` of `total` blocks are finished, and `to_prune` of the
    /// others are to be pruned rather than copied.
    void block(const Json& metrics, std::size_t done, std::size_t total, std::size_t to_prune);
    /// The end of a run, from metrics.json as a whole.
    void summary(const Json& metrics);

  private:
    void clear_live();
    bool visible_;
    bool terminal_;
    bool live_shown_ = false;
    double last_step_ = 0;    ///< seconds since the start
    std::size_t pruned_ = 0;  ///< blocks, in this session
    double searched_ = 0;     ///< seconds of learning-rate searches so far
    Stopwatch since_start_;
};

}  // namespace espalier
