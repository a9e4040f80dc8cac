#pragma once
/// How long a rank waits for another one, and what it says when that was too long.

#include <string>
#include <vector>

namespace espalier {

/// Seconds after which a peer that does not answer is taken for dead. Generous, since the owner of a block may be
/// optimising it alone: 6 hours, or what the environment variable ESPALIER_COMMUNICATION_DEADLINE says.
double communication_deadline_seconds();

/// What is known of a wait.
struct LongWait {
    double seconds = 0;
    std::vector<int> ranks;  ///< of the world, that have not answered; empty: some rank
    std::string place;       ///< "block 3, after its phase 'dense pass'"; empty: not known
    std::string call;        ///< of the library that waits; empty: not of interest
};

/// "rank 1 has not answered for 6 h 00 min in block 3, after its phase 'dense pass'; the job is ended ..."
std::string sentence_of(const LongWait& wait);

/// Throws ResourceError with that sentence.
[[noreturn]] void give_up(const LongWait& wait);

}  // namespace espalier
