#pragma once
/// What a test under mpirun knows of the ranks.

#include "mpi/session.h"

namespace espalier::support {

/// The session that main started.
Session& session();
void set_session(Session& session);
inline Communicator& world() {
    return session().world();
}

/// `condition` on every rank, or false on all of them. Collective. Use: if (!agreed(…)) return;
bool agreed(bool condition);

}  // namespace espalier::support
