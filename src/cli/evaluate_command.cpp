#include "io/file.h"
#include "io/token_file.h"
#include "src/base/clock.h"
#include "src/base/error.h"
#include "src/cli/calibration_options.h"
#include "src/cli/commands.h"
#include "src/evaluate/perplexity.h"
#include "src/report/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace espalier {

std::vector<OptionSpec> evaluate_options() {
    std::vector<OptionSpec> specs = {
        {"model",
         "model to measure: a Hugging Face folder, a finished run folder, or synthetic:NAME (see prune)",
         {},
         false,
         true},
        {"tokens",
         "tokens of a text: an HDF5 file with /input_ids, or an .npy file; its rows are read as one long text",
         {},
         false,
         true},
        {"sequence-length", "tokens of each window [default: those of a row of the file, at most 2048]", {}},
        {"json",
         "file to write the result to, as JSON; without a file name, or with '-', it is printed as one line",
         {}},
        {"config", "file with lines 'name = value' that set options", {}}};
    for (OptionSpec& spec : device_options()) specs.push_back(std::move(spec));
    return specs;
}

namespace {

/// Before the work rather than after it.
void check_writable(const std::filesystem::path& file) {
    std::error_code error;
    const std::filesystem::path folder = file.has_parent_path() ? file.parent_path() : std::filesystem::path(".");
    if (!std::filesystem::is_directory(folder, error) || std::filesystem::is_directory(file, error) ||
        ::access(folder.c_str(), W_OK) != 0) {
        throw InputError("--json " + file.string() + " cannot be written: " + folder.string() +
                         " is not a writable folder");
    }
}

/// "--json" without a name becomes "--json -".
std::vector<std::string> complete_json_option(std::vector<std::string> arguments) {
    const auto json = std::find(arguments.begin(), arguments.end(), "--json");
    if (json != arguments.end() && (json + 1 == arguments.end() || (json + 1)->starts_with("--"))) {
        arguments.insert(json + 1, "-");
    }
    return arguments;
}

}  // namespace

int evaluate_command(Session& session, const CommandLine& line) {
    if (print_help(session, line, "evaluate", "measures the perplexity of a model or a run", evaluate_options()))
        return 0;
    const Stopwatch stopwatch;
    std::optional<OptionSet> set;
    std::unique_ptr<ModelSource> source;
    ChosenDevice chosen;
    TokenTable tokens;
    std::size_t sequence_length = 0;
    Progress progress(session.rank() == 0);
    session.agree([&] {
        set.emplace("evaluate", evaluate_options(), complete_json_option(line.arguments));
        source = open_model(set->text("model"));
        tokens = read_token_file(set->text("tokens"), source->config().vocabulary, TokenPurpose::evaluation);
        if (!set->has("sequence-length")) {
            const std::size_t row = tokens.columns >= 2 ? tokens.columns : tokens.ids.size();
            set->set_effective("sequence-length", std::to_string(std::min(longest_by_default, row)), "token file");
        }
        sequence_length = set->whole("sequence-length", 2);
        if (session.rank() == 0) source->verify_outer();
        const bool to_file = set->has("json") && set->text("json") != "-";
        if (to_file && session.rank() == 0) check_writable(set->text("json"));
        chosen = make_device(session, *set);
        for (const std::string& remark : source->remarks()) progress.line(remark);
    });
    check_devices(session, chosen);
    if (!chosen.note.empty()) progress.line(chosen.note);
    const Perplexity result = measure_perplexity(session, *chosen.device, *source, tokens.ids, sequence_length,
                                                 [&](const std::string& text) { progress.step(text); });
    session.agree([&] {
        if (session.rank() != 0) return;
        progress.live("");
        std::printf("perplexity %.6f (T = %zu, %zu windows)\n", result.perplexity, sequence_length, result.windows);
        std::fflush(stdout);
        if (!set->has("json")) return;
        const Json json = {{"perplexity", result.perplexity},    {"loss", result.loss},
                           {"sequence_length", sequence_length}, {"windows", result.windows},
                           {"tokens", set->text("tokens")},      {"tokens_sha256", tokens.sha256},
                           {"model", source->path().string()},   {"seconds", stopwatch.seconds()}};
        if (set->text("json") == "-")
            std::printf("%s\n", json.dump().c_str());
        else
            write_text_atomically(set->text("json"), json.dump(1) + "\n");
    });
    return 0;
}

}  // namespace espalier
