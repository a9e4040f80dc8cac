#include "io/file.h"
#include "src/base/clock.h"
#include "src/base/units.h"
#include "src/cli/commands.h"
#include "src/plan/measure_device.h"

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

/// Once to warm up, then for about half a second.
template <typename Work>
double time_of(const Work& work) {
    work();
    return seconds_of(work, 0.5);
}

void measure(Device& device) {
    constexpr std::size_t tokens = 512, width = 2048, elements = std::size_t{1} << 25;
    const Tensor x = device.make_tensor(DType::f32, tokens, width), w = device.make_tensor(DType::f32, width, width),
                 y = device.make_tensor(DType::f32, tokens, width);
    for (const Tensor* tensor : {&x, &w, &y}) device.fill_zero(*tensor);
    const double gemm = time_of([&] {
        device.linear(x, w, {}, y);
        device.synchronize();
    });
    row("matrix products", fmt::format("{:.1f} GFLOP/s (float32, {} x {} x {})",
                                       2.0 * tokens * width * width / gemm / 1e9, tokens, width, width));
    const Tensor a = device.make_tensor(DType::f32, 1, elements), b = device.make_tensor(DType::f32, 1, elements);
    for (const Tensor* tensor : {&a, &b}) device.fill_zero(*tensor);
    const double add = time_of([&] {
        device.add(a, b);
        device.synchronize();
    });
    row("memory", fmt::format("{:.1f} GB/s (read two, write one, {} each)", 12.0 * elements / add / 1e9,
                              format_bytes(4.0 * elements)));
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
    measure(*chosen.device);
    if (set->has("rates")) {
        const DeviceModel like = device_model(chosen.is_gpu ? "h100" : "cpu");
        const DeviceModel model =
            measure_device(*chosen.device, like, MeasuredShapes::usual(chosen.is_gpu), std::filesystem::current_path());
        write_text_atomically(set->text("rates"), model.to_json().dump(1) + "\n");
        row("rates", "written to " + set->text("rates"));
    }
    return 0;
}

}  // namespace espalier
