#include "mpi/deadline.h"

#include "src/base/error.h"
#include "src/base/units.h"

#include <cstdlib>

namespace espalier {

double communication_deadline_seconds() {
    constexpr double usual = 6 * 3600.0;
    const char* const variable = std::getenv("ESPALIER_COMMUNICATION_DEADLINE");
    const double wanted = variable == nullptr ? usual : std::atof(variable);
    return wanted > 0 ? wanted : usual;
}

std::string sentence_of(const LongWait& wait) {
    constexpr std::size_t most_named = 8;
    std::string who = wait.ranks.empty() ? "another rank" : wait.ranks.size() == 1 ? "rank " : "ranks ";
    for (std::size_t i = 0; i < wait.ranks.size() && i < most_named; ++i) {
        who += (i == 0 ? "" : ", ") + std::to_string(wait.ranks[i]);
    }
    if (wait.ranks.size() > most_named) who += " and " + std::to_string(wait.ranks.size() - most_named) + " more";
    return who + (wait.ranks.size() > 1 ? " have" : " has") + " not answered for " + format_seconds(wait.seconds) +
           (wait.place.empty() ? "" : " in " + wait.place) + (wait.call.empty() ? "" : " (" + wait.call + ")") +
           "; the job is ended (ESPALIER_COMMUNICATION_DEADLINE is how many seconds a rank waits)";
}

void give_up(const LongWait& wait) {
    throw ResourceError(sentence_of(wait));
}

}  // namespace espalier
