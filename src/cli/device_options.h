#pragma once
/// Which device a rank computes on, and with how many threads.

#include "kernels/device.h"
#include "mpi/session.h"
#include "src/cli/option_set.h"

#include <memory>
#include <string>
#include <vector>

namespace espalier {

/// --device, --gpu-memory and --threads.
std::vector<OptionSpec> device_option_specs();
/// The device that a rank computes on.
struct ChosenDevice {
    std::unique_ptr<Device> device;
    bool is_gpu = false;
    int host_threads = 1;  ///< this rank's share of the cores
    std::string gpu_uuid;  ///< empty on the CPU
    std::string note;      ///< for the log: why `auto` computes on the CPU; else empty
};
/// Makes the device that the options ask for; of several GPUs the one of this rank. Throws InputError.
ChosenDevice make_device(const Session& session, const OptionSet& options);
/// Host memory that a rank without a GPU may take: its share of what this machine has left; no limit with a GPU.
std::size_t memory_of_rank(const Session& session, const ChosenDevice& chosen);
/// GPU of the local rank when `visible` are there for `local_size` ranks. Throws InputError when they cannot have one
/// each.
int choose_gpu(int local_rank, int local_size, int visible);
/// Throws InputError when ranks share a GPU or compute on different kinds of devices. Collective.
void check_devices(const Session& session, const ChosenDevice& chosen);
/// Threads of a rank: --threads, else OMP_NUM_THREADS, else its fair share of the cores it may use.
int choose_threads(const Session& session, const OptionSet& options);

}  // namespace espalier
