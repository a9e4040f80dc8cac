#pragma once
/// The rates of a NetworkModel, measured between the ranks that run now.

#include "kernels/device.h"
#include "mpi/network_model.h"
#include "mpi/session.h"

#include <string>

namespace espalier {

struct MeasuredNetwork {
    NetworkModel model;
    std::string origin;  ///< which links were measured, of how many ranks, and which are assumed
};

/// Messages between pairs of ranks, all pairs at once, both ways, from and to memory of `device`; the slowest pair
/// counts. Links that no pair has (all ranks on one machine, one rank on each) stay those of `like`, which `like_name`
/// names. Takes about a second and 32 MiB of the device. Throws InputError when ranks do not lie machine after machine,
/// equally many on each. Collective over the session.
MeasuredNetwork measure_network(const Session& session, Device& device, const NetworkModel& like,
                                const std::string& like_name);

}  // namespace espalier
