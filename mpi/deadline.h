#pragma once
/// How long a rank waits for another one.

namespace espalier {

/// Seconds after which a peer that does not answer is taken for dead. Generous, since the owner of a block may be
/// optimising it alone: 6 hours, or what the environment variable ESPALIER_COMMUNICATION_DEADLINE says.
double communication_deadline_seconds();

}  // namespace espalier
