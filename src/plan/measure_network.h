#pragma once
/// The rates of a NetworkModel, measured between the ranks that run now.

#include "kernels/device.h"
#include "mpi/session.h"
#include "src/plan/device_model.h"

#include <string>

namespace espalier {

struct MeasuredNetwork {
    NetworkModel model;
    bool inside = false, between = false;  ///< which links were measured
    std::string origin;                    ///< the same in words, with the number of ranks
};

/// A sentence when ranks do not lie machine after machine, equally many on each, as a NetworkModel has them; else
/// empty. The same on every rank. Collective over the session.
std::string placement_problem(const Session& session);

/// Messages from and to memory of `device` by all ranks at once, between neighbours for the latency, among all ranks of
/// a machine and between pairs of machines for the bandwidth; the slowest rank counts. Links that are not there (ranks
/// on one machine only, one rank on each) stay those of `like`, and so does the number of ranks on a machine, unless
/// several machines with several ranks are there. Takes a second or two, and 128 MiB of a GPU.
/// Requires that there is no placement_problem. Collective over the session.
MeasuredNetwork measure_network(const Session& session, Device& device, const DeviceModel& like);

}  // namespace espalier
