#include "tests/support/ranks.h"

#include "src/base/error.h"

#include <algorithm>

namespace espalier::support {

namespace {
Session* the_session = nullptr;
}

Session& session() {
    require(the_session != nullptr, "a session, started by the main of mpi_tests");
    return *the_session;
}

void set_session(Session& session) {
    the_session = &session;
}

bool agreed(bool condition) {
    const auto all = world().all_gather_value(condition ? 1 : 0);
    return std::count(all.begin(), all.end(), 1) == session().size();
}

}  // namespace espalier::support
