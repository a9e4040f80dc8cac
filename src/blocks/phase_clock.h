#pragma once
/// Where the time and the communication of a block go; and where a rank is that waits for too long.

#include "mpi/communicator.h"
#include "src/base/clock.h"

#include <algorithm>
#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace espalier {

struct PhaseCost {
    double seconds = 0;
    CommunicationLedger communication;  ///< of this rank
};

/// Adds the time since the last mark, and what went through the watched communicators, to a named phase.
class PhaseClock {
  public:
    /// All given objects outlive it. One that is given twice counts once.
    PhaseClock(const Clock& clock, std::vector<Communicator*> watched)
        : clock_(clock), watched_(std::move(watched)), last_(clock.now()) {
        std::sort(watched_.begin(), watched_.end());
        watched_.erase(std::unique(watched_.begin(), watched_.end()), watched_.end());
        counted_ = counts_so_far();
    }

    /// One with the same sense of time that watches nothing.
    PhaseClock another() const { return {clock_, {}}; }

    /// From here on the watched communicators know that their waits belong to this block.
    void begin_block(std::size_t block) {
        block_ = "block " + std::to_string(block);
        tell(block_);
    }

    void mark(const std::string& phase) {
        PhaseCost& cost = costs_[phase];
        const double now = clock_.now();
        cost.seconds += now - last_;
        last_ = now;
        CommunicationLedger counts = counts_so_far();
        cost.communication += counts;
        cost.communication -= counted_;
        counted_ = counts;
        // A phase is named when it ends.
        if (!block_.empty()) tell(block_ + ", after its phase '" + phase + "'");
        if (after_mark_) after_mark_(phase);
    }
    /// Called at the end of every phase, with its name.
    void after_mark(std::function<void(const std::string&)> callback) { after_mark_ = std::move(callback); }
    /// Costs by phase since construction or the last call; starts anew.
    std::map<std::string, PhaseCost> take() {
        std::map<std::string, PhaseCost> result;
        result.swap(costs_);
        last_ = clock_.now();
        counted_ = counts_so_far();
        return result;
    }

  private:
    void tell(const std::string& place) const {
        for (Communicator* const communicator : watched_) communicator->set_place(place);
    }
    CommunicationLedger counts_so_far() const {
        CommunicationLedger sum;
        for (const Communicator* const communicator : watched_) sum += communicator->ledger();
        return sum;
    }

    const Clock& clock_;
    std::vector<Communicator*> watched_;
    double last_;
    std::string block_;
    CommunicationLedger counted_;
    std::map<std::string, PhaseCost> costs_;
    std::function<void(const std::string&)> after_mark_;
};

}  // namespace espalier
