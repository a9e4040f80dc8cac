#include "io/file.h"
#include "src/base/units.h"
#include "src/cli/commands.h"
#include "src/plan/measure_device.h"
#include "src/plan/measure_network.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <thread>

namespace espalier {

namespace {

std::vector<OptionSpec> doctor_options() {
    std::vector<OptionSpec> specs = {{"rates", "file to write measured rates to, for `plan --rates`", {}},
                                     {"config", "file of 'name = value' lines", {}}};
    for (OptionSpec& spec : device_options()) specs.push_back(std::move(spec));
    return specs;
}

void row(const std::string& what, const std::string& found) {
    std::printf("%-22s %s\n", what.c_str(), found.c_str());
}

void print(const DeviceModel& model, const MeasuredShapes& shapes) {
    std::string rates = fmt::format("{:.1f} GFLOP/s float32", model.float32.linear / 1e9);
    if (model.is_gpu) {
        rates +=
            fmt::format(", {:.1f} as TF32, {:.1f} in 16 bits", model.tf32.linear / 1e9, model.sixteen_bit.linear / 1e9);
    }
    row("matrix products", rates + fmt::format(" ({} x {} x {})", shapes.tokens, shapes.intermediate, shapes.hidden));
    row("memory", fmt::format("{:.1f} GB/s (read two, write one)", model.memory_bandwidth / 1e9));
}

std::string link_text(const LinkModel& link) {
    return fmt::format("{:.1f} us, {:.2f} GB/s", link.latency * 1e6, link.bandwidth / 1e9);
}

}  // namespace

int doctor_command(Session& session, const CommandLine& line) {
    if (print_help(session, line, "doctor", "what is found on this machine, and how fast it is", doctor_options()))
        return 0;
    std::optional<OptionSet> set;
    ChosenDevice chosen;
    session.agree([&] {
        set.emplace("doctor", doctor_options(), line.arguments);
        chosen = make_device(session, *set);
    });
    check_devices(session, chosen);
    const DeviceModel like = device_model(chosen.is_gpu ? "h100" : "cpu");
    const MeasuredNetwork network = measure_network(session, *chosen.device, like.network, like.name);
    if (session.rank() != 0) return 0;
    row("MPI", session.launched() ? fmt::format("{} rank(s), {} on this machine", session.size(), session.local_size())
                                  : "not started: no launcher (mpirun -n P or srun --mpi=pmix start several ranks)");
    row("processor", fmt::format("{} core(s), {} thread(s) for each rank", std::thread::hardware_concurrency(),
                                 choose_threads(session, *set)));
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGE_SIZE);
    row("host memory", format_bytes(static_cast<double>(pages) * static_cast<double>(page)));
    std::error_code error;
    const auto space = std::filesystem::space(".", error);
    if (!error) row("disk here", format_bytes(static_cast<double>(space.available)) + " free");
    row("CUDA", cuda_availability().explanation);
    row("will use", chosen.device->description());
    const MeasuredShapes shapes = MeasuredShapes::usual(chosen.is_gpu);
    // Files are measured by writing one, which needs to be asked for.
    const std::filesystem::path folder = set->has("rates") ? std::filesystem::current_path() : std::filesystem::path();
    DeviceModel model = measure_device(*chosen.device, like, shapes, folder);
    model.network = network.model;
    model.origin += "; " + network.origin;
    print(model, shapes);
    if (session.size() > 1) {
        row("network", network.origin);
        row("  in a machine", link_text(network.model.inside));
        row("  between machines", link_text(network.model.between));
    }
    if (set->has("rates")) {
        write_text_atomically(set->text("rates"), model.to_json().dump(1) + "\n");
        row("rates", "written to " + set->text("rates"));
    }
    return 0;
}

}  // namespace espalier
