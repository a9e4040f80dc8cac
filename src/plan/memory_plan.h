#pragma once
/// Device memory that a run takes on one rank, found by letting the run's own code allocate it on a modelled device.

#include "kernels/memory_ledger.h"
#include "mpi/communicator.h"
#include "src/base/json.h"
#include "src/plan/rehearsal.h"
#include "src/samples/sample_store.h"

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

namespace espalier {

/// Program, libraries, CUDA's host side (docs/performance.md: 200 MB resident where a GPU is used, else about 60).
constexpr std::size_t process_bytes = std::size_t{300} << 20;

/// What is there at the moment that needs the most.
struct MemoryPlan {
    StoragePlace hidden_states = StoragePlace::device;
    std::vector<MemoryItem> items;

    std::size_t total() const { return total_bytes(items); }
};

/// For the log: whose hidden states do not fit on their devices; empty when all do. Collective.
std::string note_about_host_memory(Communicator& world, const MemoryPlan& mine);

/// Only what decides about memory: kind, multiprocessors, budget. Its rates mean nothing.
DeviceModel counting_model(const Device& device);

/// Hidden states and dense outputs lie on the device when all that `items_with` counts fits into `budget` bytes, else
/// in host memory. Throws ResourceError with the items and `advice` when not even that is enough.
MemoryPlan choose_place(std::size_t budget, const std::string& what, const std::string& advice,
                        const std::function<std::vector<MemoryItem>(StoragePlace)>& items_with);

/// The most that a rank takes in a whole run: with a block that it owns and one that it does not, in the search for the
/// learning rate, and in the dense pass to later block groups. run.block is not looked at.
MemoryPlan plan_memory(const RehearsedRun& run, const DeviceModel& device);

/// The total and the items, the largest first, as lines of a table.
std::string describe(const MemoryPlan& memory, const DeviceModel& device);
Json to_json(const MemoryPlan& memory);

}  // namespace espalier
