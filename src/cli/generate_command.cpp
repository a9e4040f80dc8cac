#include "io/file.h"
#include "io/token_file.h"
#include "mpi/tensor_communicator.h"
#include "src/base/clock.h"
#include "src/base/error.h"
#include "src/base/units.h"
#include "src/cli/commands.h"
#include "src/cli/device_options.h"
#include "src/cli/generation_options.h"
#include "src/cli/measured_model.h"
#include "src/cli/output_file.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <span>
#include <string_view>

namespace espalier {

std::vector<OptionSpec> generate_option_specs() {
    std::vector<OptionSpec> specs = {
        measured_model_option("model to draw from"),
        {"output",
         "HDF5 file to write, or to draw anew: /input_ids [samples, length], as prune takes it for --calibration",
         {},
         false,
         true},
        {"samples", "sequences to draw", "128"},
        {"sequence-length", "tokens of each [default: 2048, or what the model takes]", {}},
        {"prompts",
         "tokens that the samples begin with, [rows, length]: an HDF5 file with /input_ids, or an .npy file; sample i "
         "takes row i modulo rows",
         {}}};
    for (OptionSpec& spec : sampling_option_specs()) specs.push_back(std::move(spec));
    specs.push_back({"stages",
                     "ranks that share one copy of the model, each some of its blocks [default: the fewest that hold "
                     "it]",
                     {}});
    specs.push_back({"config", "file with lines 'name = value' that set options", {}});
    for (OptionSpec& spec : device_option_specs()) specs.push_back(std::move(spec));
    return specs;
}

namespace {

/// A token file may be drawn anew; any other file is kept.
void refuse_other_file(const std::filesystem::path& output) {
    if (output.extension() == ".npy")
        throw InputError("--output " + output.string() + " is to be an HDF5 file; call it .h5");
    if (!std::filesystem::exists(output)) return;
    constexpr std::string_view signature = "\x89HDF\r\n\x1a\n";
    const InputFile file(output);
    std::string beginning(std::min<std::size_t>(signature.size(), file.size()), '\0');
    file.read(0, std::as_writable_bytes(std::span(beginning)));
    if (beginning != signature)
        throw InputError("--output " + output.string() + " exists and is no token file; name another");
}

}  // namespace

int generate_command(Session& session, const CommandLine& line) {
    if (print_help(session, line, "generate", "draws tokens from a model: calibration without a corpus",
                   generate_option_specs()))
        return 0;
    const Stopwatch stopwatch;
    std::optional<OptionSet> set;
    std::unique_ptr<ModelSource> source;
    ChosenDevice chosen;
    GenerationOptions options;
    Progress progress(session.rank() == 0);
    session.agree([&] {
        set.emplace("generate", generate_option_specs(), line.arguments);
        source = open_model(set->text("model"));
        for (const std::string& remark : source->remarks()) progress.line(remark);
        options = parse_generation_options(*set, *source, static_cast<std::size_t>(session.size()));
        if (session.rank() == 0) {
            refuse_unwritable("output", set->text("output"));
            refuse_other_file(set->text("output"));
            source->verify_outer();
        }
        chosen = make_device(session, *set);
    });
    check_devices(session, chosen);
    if (!chosen.note.empty()) progress.line(chosen.note);
    const TensorCommunicator tensors(session.world(), *chosen.device);
    const SayProgress step = [&](const std::string& text) { progress.step(text); };
    const std::vector<std::int32_t> ids = generate_tokens({.device = *chosen.device,
                                                           .group = tensors.get(),
                                                           .control = session.world(),
                                                           .source = *source,
                                                           .progress = step,
                                                           .memory = memory_of_rank(session, chosen)},
                                                          options);
    session.agree([&] {
        if (session.rank() != 0) return;
        progress.live("");
        write_token_file(set->text("output"), options.samples, options.sequence_length, ids,
                         recipe_of(options, *source));
        std::printf("%zu samples of %zu tokens drawn in %s, in %s\n", options.samples, options.sequence_length,
                    format_seconds(stopwatch.seconds()).c_str(), set->text("output").c_str());
        std::fflush(stdout);
    });
    return 0;
}

}  // namespace espalier
