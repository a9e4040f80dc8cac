#include "src/cli/device_options.h"

#include "src/base/error.h"
#include "src/base/units.h"
#include "src/cli/commands.h"

#include <sched.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <limits>
#include <thread>

namespace espalier {

std::vector<OptionSpec> device_option_specs() {
    return {
        {"device", "where to compute: cpu, cuda (an NVIDIA GPU), or auto, which takes a GPU when there is one", "auto"},
        {"gpu-memory",
         "GPU memory that tensors may take, for instance 16GiB [default: what is free, less a reserve]",
         {}},
        {"threads",
         "CPU threads of each rank; the result does not depend on it [default: its share of the cores]",
         {}}};
}

int choose_threads(const Session& session, const OptionSet& options) {
    if (options.has("threads")) return static_cast<int>(std::min<std::uint64_t>(options.whole("threads", 1), 4096));
    if (const char* const variable = std::getenv("OMP_NUM_THREADS")) {
        if (const int threads = std::atoi(variable); threads > 0) return threads;
    }
    // The cores this rank may use, shared fairly with the ranks that may use the same ones.
    cpu_set_t allowed;
    const int cores = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
    const int mine = sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : cores;
    return std::max(1, mine / session.ranks_on_my_cores());
}

int choose_gpu(int local_rank, int local_size, int visible) {
    if (visible >= local_size) return local_rank;
    // One GPU visible to each task (srun --gpus-per-task): check_devices sees whether it is the same one.
    if (visible == 1) return 0;
    const auto variable = [](const char* name) {
        const char* const value = std::getenv(name);
        return std::string(name) + "=" + (value == nullptr ? "(unset)" : value);
    };
    throw InputError(
        "--device cuda: " + std::to_string(local_size) + " ranks on this machine see " + std::to_string(visible) +
        " GPUs (" + variable("CUDA_VISIBLE_DEVICES") + ", " + variable("SLURM_JOB_GPUS") +
        "); start one rank a GPU: --gpus-per-node=G --ntasks-per-node=G, or mpirun -n " + std::to_string(visible));
}

ChosenDevice make_device(const Session& session, const OptionSet& options) {
    const std::string choice = options.text("device");
    if (choice != "auto" && choice != "cpu" && choice != "cuda")
        throw InputError("--device '" + choice + "' is not one of auto, cpu, cuda");
    ChosenDevice chosen;
    chosen.host_threads = choose_threads(session, options);
    if (choice != "cpu") {
        const CudaAvailability found = cuda_availability();
        chosen.is_gpu = found.gpus > 0;
        if (chosen.is_gpu) {
            CudaOptions cuda;
            cuda.gpu = choose_gpu(session.local_rank(), session.local_size(), found.gpus);
            if (options.has("gpu-memory")) cuda.memory_budget = parse_bytes(options.text("gpu-memory"), "gpu-memory");
            if (found.gpus == 1 && session.local_size() > 1) {
                chosen.note =
                    "note: each rank sees one GPU only (--gpus-per-task?), so that NCCL cannot use NVLink between "
                    "them; "
                    "--gpus-per-node with --ntasks-per-node lets all ranks see all GPUs";
            }
            chosen.gpu_uuid = found.uuids.at(static_cast<std::size_t>(cuda.gpu));
            chosen.device = make_cuda_device(cuda);
            return chosen;
        }
        if (choice == "cuda") throw InputError("--device cuda: " + found.explanation + "; use --device cpu");
        if (built_with_cuda()) chosen.note = "computing on the CPU: " + found.explanation;
    }
    if (options.given("gpu-memory")) {
        throw InputError("--gpu-memory " + options.text("gpu-memory") + ": this run computes on the CPU");
    }
    chosen.device = make_cpu_device(chosen.host_threads);
    return chosen;
}

void check_devices(const Session& session, const ChosenDevice& chosen) {
    struct Place {
        bool is_gpu;
        std::array<char, 64> uuid, arithmetic;
    };
    Place mine{chosen.is_gpu, {}, {}};
    chosen.gpu_uuid.copy(mine.uuid.data(), mine.uuid.size() - 1);
    chosen.device->arithmetic().copy(mine.arithmetic.data(), mine.arithmetic.size() - 1);
    const std::vector<Place> all = session.world().all_gather_value(mine);
    for (std::size_t r = 0; r < all.size(); ++r) {
        if (all[r].is_gpu != all[0].is_gpu) {
            throw InputError("rank " + std::to_string(all[0].is_gpu ? r : 0) + " finds no GPU and rank " +
                             std::to_string(all[0].is_gpu ? 0 : r) +
                             " does; say --device cuda or --device cpu, and ask for GPUs on every machine");
        }
        if (all[r].arithmetic != all[0].arithmetic) {
            throw InputError(std::string("rank 0 computes with ") + all[0].arithmetic.data() + ", rank " +
                             std::to_string(r) + " with " + all[r].arithmetic.data() +
                             ", which round differently; ask for machines of one kind (--constraint), or set "
                             "OPENBLAS_CORETYPE=Haswell on all for CPUs");
        }
        for (std::size_t other = 0; other < r && all[r].is_gpu; ++other) {
            if (all[r].uuid != all[other].uuid) continue;
            throw InputError("ranks " + std::to_string(other) + " and " + std::to_string(r) + " share the GPU " +
                             all[r].uuid.data() +
                             "; start one rank a GPU (--gpus-per-node=G --ntasks-per-node=G, without --gpus-per-task)");
        }
    }
}

std::size_t memory_of_rank(const Session& session, const ChosenDevice& chosen) {
    if (chosen.is_gpu) return std::numeric_limits<std::size_t>::max();
    return available_host_bytes() / static_cast<std::size_t>(session.local_size());
}

}  // namespace espalier
