#include "kernels/cpu/blas_core.h"
#include "kernels/device.h"
#include "src/base/error.h"
#include "src/base/stop_request.h"
#include "src/base/version.h"
#include "src/cli/commands.h"
#include "src/cli/environment_variables.h"
#include "src/cli/help_texts.h"
#include "src/cli/nearest_name.h"

#include <malloc.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace espalier {
namespace {

struct Command {
    const char* name;
    int (*run)(Session&, const CommandLine&);
    std::vector<OptionSpec> (*options)();
    const char* summary;
};

constexpr std::array<Command, 9> commands = {
    {{"prune", prune_command, prune_option_specs, "prunes a model, decoder block by decoder block, into a run folder"},
     {"finetune", finetune_command, finetune_option_specs, "trains a pruned model further and keeps its zeros"},
     {"evaluate", evaluate_command, evaluate_option_specs, "measures the perplexity of a model or a run"},
     {"score", score_command, score_option_specs, "measures how likely a model finds answers of tasks"},
     {"generate", generate_command, generate_option_specs, "draws tokens from a model: calibration without a corpus"},
     {"inspect", inspect_command, inspect_option_specs, "checks the files of a run or a model, and counts their zeros"},
     {"export", export_command, export_option_specs, "writes a run as a Hugging Face folder"},
     {"plan", plan_command, plan_option_specs,
      "predicts memory and time of a run, and the best way to use 1 … 1024 GPUs"},
     {"doctor", doctor_command, doctor_option_specs,
      "shows what is found here, what would be used, and how fast it is"}}};

std::string usage() {
    std::string text = "Espalier " + std::string(program_version) +
                       ": one-shot pruning of LLaMA-family models (Wanda++)\n\nusage: espalier COMMAND [options]\n\n";
    for (const Command& command : commands) {
        std::string name = command.name;
        name.resize(10, ' ');
        text += "  " + name + command.summary + "\n";
    }
    return text + "\nespalier COMMAND --help lists its options. Run it alone, under mpirun or under srun.\n" +
           general_help();
}

/// A misspelt variable would change nothing, in silence.
void warn_of_unread_variables(const Session& session) {
    if (session.rank() != 0) return;
    std::vector<OptionSpec> options;
    for (const Command& command : commands) {
        for (OptionSpec& option : command.options()) options.push_back(std::move(option));
    }
    for (const std::string& sentence : unread_variables(own_variables(), options)) {
        std::fprintf(stderr, "warning: %s\n", sentence.c_str());
    }
}

int run(Session& session, const std::vector<std::string>& words) {
    if (words.empty() || words[0] == "--help" || words[0] == "-h" || words[0] == "help") {
        if (session.rank() == 0) std::fputs(usage().c_str(), words.empty() ? stderr : stdout);
        return words.empty() ? static_cast<int>(ExitStatus::input) : 0;
    }
    if (words[0] == "--version") {
        if (session.rank() == 0) {
            std::printf("espalier %s%s\n", std::string(program_version).c_str(),
                        built_with_cuda() ? "" : " (without CUDA)");
        }
        return 0;
    }
    CommandLine line{{words.begin() + 1, words.end()}, "espalier"};
    for (const std::string& word : words) line.text += " " + word;
    for (const Command& command : commands) {
        if (words[0] != command.name) continue;
        warn_of_unread_variables(session);
        return command.run(session, line);
    }
    std::vector<std::string> names;
    names.reserve(commands.size());
    for (const Command& command : commands) names.emplace_back(command.name);
    throw InputError("there is no command '" + words[0] + "'" + did_you_mean(nearest_name(words[0], names)) +
                     " (espalier --help lists them)");
}

/// Libraries read some variables at their own start, so the program starts itself again with better ones, unless the
/// user has chosen:
/// - OpenMP's threads wait for work by spinning for milliseconds, which takes the cores from other ranks and programs
///   on a shared machine (measured: 25 times slower beside a compiler); about 50 microseconds are enough.
/// - OpenBLAS takes very old kernels on processors that it does not know.
void choose_for_libraries(char** argv) {
    bool changed = false;
    const auto set = [&](const char* name, const std::string& value) {
        if (std::getenv(name) != nullptr || value.empty()) return;
        setenv(name, value.c_str(), 1);
        changed = true;
    };
    if (std::getenv("OMP_WAIT_POLICY") == nullptr) set("GOMP_SPINCOUNT", "3000");
    set("OPENBLAS_CORETYPE", better_blas_core());
    if (!changed) return;
    // By its own path: ps and top show the last part of what is executed, which is not to be "exe". Both return only
    // when they fail; then all works, only slower.
    std::error_code unknown;
    const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", unknown);
    if (!unknown) execv(program.c_str(), argv);
    execv("/proc/self/exe", argv);  // its file has been replaced, or lies where this process cannot see it
}

}  // namespace
}  // namespace espalier

int main(int argc, char** argv) {
    using namespace espalier;
    const bool can_stop_in_order =
        argc > 1 && (std::string_view(argv[1]) == "prune" || std::string_view(argv[1]) == "finetune");
    if (can_stop_in_order) hold_stop_signals();
    choose_for_libraries(argv);
    // Blocks come and go: their buffers are returned to the system at once instead of fragmenting the heap.
    mallopt(M_MMAP_THRESHOLD, 4 << 20);
    // Before MPI starts: a signal that comes early must not end what could stop in order.
    if (can_stop_in_order) note_stop_signals();
    std::optional<Session> session;
    try {
        session.emplace();
        return run(*session, {argv + 1, argv + argc});
    } catch (...) {
        const Error error = as_error(std::current_exception());
        if (session && session->size() > 1) session->fail(error);
        std::fputs(error_line(error, {}).c_str(), stderr);
        session.reset();
        std::fflush(nullptr);
        // Not through exit(): HDF5 1.10 crashes in its exit handler when a file could not be closed on a full disk.
        std::_Exit(static_cast<int>(error.status()));
    }
}
