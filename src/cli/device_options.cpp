#include "src/base/error.h"
#include "src/cli/commands.h"

#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <thread>

namespace espalier {

bool print_help(Session& session, const CommandLine& line, const std::string& command, const std::string& summary,
                const std::vector<OptionSpec>& specs) {
    for (const char* const word : {"--help", "-h"}) {
        if (std::find(line.arguments.begin(), line.arguments.end(), word) == line.arguments.end()) continue;
        if (session.rank() == 0) std::fputs(OptionSet::help(command, summary, specs).c_str(), stdout);
        return true;
    }
    return false;
}

std::vector<OptionSpec> device_options() {
    return {
        {"device", "auto, cpu or cuda", "auto"},
        {"threads", "CPU threads of each rank; by default its share of the cores (results do not depend on it)", {}}};
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

std::unique_ptr<Device> make_device(const Session& session, const OptionSet& options) {
    const std::string choice = options.text("device");
    if (choice == "cuda") {
        throw InputError("--device cuda: version 0.1 computes on the CPU only (" + cuda_availability().explanation +
                         "); use --device cpu");
    }
    if (choice != "auto" && choice != "cpu")
        throw InputError("--device '" + choice + "' is not one of auto, cpu, cuda");
    return make_cpu_device(choose_threads(session, options));
}

}  // namespace espalier
