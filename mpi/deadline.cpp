#include "mpi/deadline.h"

#include <cstdlib>

namespace espalier {

double communication_deadline_seconds() {
    constexpr double usual = 6 * 3600.0;
    const char* const variable = std::getenv("ESPALIER_COMMUNICATION_DEADLINE");
    const double wanted = variable == nullptr ? usual : std::atof(variable);
    return wanted > 0 ? wanted : usual;
}

}  // namespace espalier
