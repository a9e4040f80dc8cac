#include "io/file.h"
#include "src/base/error.h"
#include "src/base/units.h"
#include "src/cli/commands.h"
#include "src/cli/device_options.h"
#include "src/cli/output_file.h"
#include "src/plan/measure_device.h"
#include "src/plan/measure_network.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <thread>

namespace espalier {

std::vector<OptionSpec> doctor_option_specs() {
    std::vector<OptionSpec> specs = {
        {"rates",
         "file to write the measured rates to, for `plan --rates` and `prune --dry-run-ranks`; the disk is then "
         "measured too, by writing 128 MiB into the present folder",
         {}},
        {"gpu",
         "kind of device (as in `plan --gpu`) whose known rates stand for what cannot be measured here [default: h100 "
         "on a GPU, cpu on a CPU]",
         {}},
        {"config", "file with lines 'name = value' that set options", {}}};
    for (OptionSpec& spec : device_option_specs()) specs.push_back(std::move(spec));
    return specs;
}

namespace {

void row(const std::string& what, const std::string& found) {
    std::printf("%-22s %s\n", what.c_str(), found.c_str());
}

void print(const DeviceModel& model, const MeasuredShapes& shapes, bool files_measured) {
    std::string rates = fmt::format("{:.1f} GFLOP/s float32", model.float32.linear / 1e9);
    if (model.is_gpu) {
        rates +=
            fmt::format(", {:.1f} as TF32, {:.1f} in 16 bits", model.tf32.linear / 1e9, model.sixteen_bit.linear / 1e9);
    }
    row("matrix products", rates + fmt::format(" ({} x {} x {})", shapes.tokens, shapes.intermediate, shapes.hidden));
    row("memory", fmt::format("{:.1f} GB/s (read two, write one)", model.memory_bandwidth / 1e9));
    row("host and device", fmt::format("{:.1f} GB/s each way", model.host_link / 1e9));
    row("files here", files_measured ? fmt::format("{:.2f} GB/s written", model.file_bandwidth / 1e9)
                                     : "not measured without --rates FILE, since it writes 128 MiB");
}

void print(const MeasuredNetwork& network) {
    const auto link = [](const LinkModel& model, bool measured) {
        return fmt::format("{:.1f} us, {:.2f} GB/s of a rank{}", model.latency * 1e6, model.bandwidth / 1e9,
                           measured ? "" : " (assumed)");
    };
    row("network", network.origin);
    row("  in a machine", link(network.model.inside, network.inside));
    row("  between machines", link(network.model.between, network.between));
    row("  of each message", fmt::format("{:.2f} us more", network.model.message_overhead * 1e6));
    row("  ranks to a machine",
        fmt::format("{}{}", network.model.ranks_per_machine, network.inside && network.between ? "" : " (assumed)"));
}

/// What was found, before anything is measured that may fail or wait.
void print_found(const Session& session, const OptionSet& set, const ChosenDevice& chosen) {
    row("MPI", session.launched() ? fmt::format("{} rank(s), {} on this machine", session.size(), session.local_size())
                                  : "not started: no launcher (mpirun -n P or srun --mpi=pmix start several ranks)");
    row("processor", fmt::format("{} core(s), {} thread(s) for each rank", std::thread::hardware_concurrency(),
                                 choose_threads(session, set)));
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGE_SIZE);
    row("host memory", format_bytes(static_cast<double>(pages) * static_cast<double>(page)));
    std::error_code error;
    const auto space = std::filesystem::space(".", error);
    if (!error) row("disk here", format_bytes(static_cast<double>(space.available)) + " free");
    row("CUDA", cuda_availability().explanation);
    row("will use", chosen.device->description());
    if (!chosen.note.empty()) row("note", chosen.note);
    std::fflush(stdout);
}

}  // namespace

int doctor_command(Session& session, const CommandLine& line) {
    if (print_help(session, line, "doctor", "shows what is found here, what would be used, and how fast it is",
                   doctor_option_specs()))
        return 0;
    std::optional<OptionSet> set;
    ChosenDevice chosen;
    DeviceModel like;
    session.agree([&] {
        set.emplace("doctor", doctor_option_specs(), line.arguments);
        if (set->has("rates")) refuse_unwritable("rates", set->text("rates"));
        chosen = make_device(session, *set);
        like = device_model(set->has("gpu") ? set->text("gpu") : chosen.is_gpu ? "h100" : "cpu");
        if (like.is_gpu != chosen.is_gpu) {
            throw InputError("--gpu " + set->text("gpu") + ", but this runs on a " + (chosen.is_gpu ? "GPU" : "CPU"));
        }
    });
    check_devices(session, chosen);
    if (session.rank() == 0) print_found(session, *set, chosen);

    const std::string misplaced = placement_problem(session);
    if (!misplaced.empty() && set->has("rates")) throw InputError(misplaced);

    // Every rank measures, as every rank computes in a run: they share memory, buses and cores.
    const MeasuredShapes shapes = MeasuredShapes::usual(chosen.is_gpu);
    // Files are measured by writing one, which needs to be asked for.
    const std::filesystem::path folder =
        set->has("rates") && session.rank() == 0 ? std::filesystem::current_path() : std::filesystem::path();
    DeviceModel model;
    session.agree([&] { model = measure_device(*chosen.device, like, shapes, folder); });
    if (session.rank() == 0) print(model, shapes, set->has("rates"));

    if (misplaced.empty()) {
        const MeasuredNetwork network = measure_network(session, *chosen.device, like);
        model.network = network.model;
        model.origin += "; " + network.origin;
        if (session.rank() == 0 && session.size() > 1) print(network);
        if (session.size() == 1) row("network", "not measured: one rank");
    } else if (session.rank() == 0) {
        row("network", "not measured: " + misplaced);
    }
    if (!chosen.note.empty()) model.origin += "; " + chosen.note;
    if (session.rank() == 0 && set->has("rates")) {
        write_text_atomically(set->text("rates"), model.to_json().dump(1) + "\n");
        row("rates", "written to " + set->text("rates"));
    }
    return 0;
}

}  // namespace espalier
