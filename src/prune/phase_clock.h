#pragma once
/// Where the time of a block goes.

#include "src/base/clock.h"

#include <map>
#include <string>

namespace espalier {

/// Adds the time since the last mark to a named phase.
class PhaseClock {
  public:
    void mark(const std::string& phase) { seconds_[phase] += stopwatch_.lap(); }
    /// Seconds by phase since construction or the last call; starts anew.
    std::map<std::string, double> take() {
        std::map<std::string, double> result;
        result.swap(seconds_);
        return result;
    }

  private:
    Stopwatch stopwatch_;
    std::map<std::string, double> seconds_;
};

}  // namespace espalier
