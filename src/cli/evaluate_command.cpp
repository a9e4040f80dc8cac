#include "io/file.h"
#include "io/token_file.h"
#include "src/base/clock.h"
#include "src/base/error.h"
#include "src/cli/calibration_options.h"
#include "src/cli/commands.h"
#include "src/cli/measured_model.h"
#include "src/cli/output_file.h"
#include "src/evaluate/perplexity.h"

#include <algorithm>
#include <cstdio>

namespace espalier {

std::vector<OptionSpec> evaluate_option_specs() {
    std::vector<OptionSpec> specs = {
        measured_model_option("model to measure"),
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
    for (OptionSpec& spec : device_option_specs()) specs.push_back(std::move(spec));
    return specs;
}

namespace {

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
    if (print_help(session, line, "evaluate", "measures the perplexity of a model or a run", evaluate_option_specs()))
        return 0;
    const Stopwatch stopwatch;
    std::optional<OptionSet> set;
    std::optional<MeasuredModel> model;
    std::vector<PackedSequences> windows;
    std::string tokens_sha256;
    std::size_t sequence_length = 0;
    Progress progress(session.rank() == 0);
    session.agree([&] {
        set.emplace("evaluate", evaluate_option_specs(), complete_json_option(line.arguments));
        model.emplace(session, *set, progress);
        const ModelConfig& config = model->source().config();
        const TokenTable tokens = read_token_file(set->text("tokens"), config.vocabulary, TokenPurpose::evaluation);
        if (!set->has("sequence-length")) {
            set->set_effective("sequence-length", std::to_string(std::min(longest_by_default, row_of_text(tokens))),
                               "token file");
        }
        sequence_length = set->whole("sequence-length", 2);
        const bool to_file = set->has("json") && set->text("json") != "-";
        if (to_file && session.rank() == 0) refuse_unwritable("json", set->text("json"));
        windows = windows_of_text(config, tokens.ids, sequence_length);
        tokens_sha256 = tokens.sha256;
        model->prepare(*set);
    });
    const Perplexity result =
        perplexity_of(model->measure(windows, "use a shorter --sequence-length"), sequence_length);
    session.agree([&] {
        if (session.rank() != 0) return;
        progress.live("");
        std::printf("perplexity %.6f (T = %zu, %zu windows)\n", result.perplexity, sequence_length, result.windows);
        std::fflush(stdout);
        if (!set->has("json")) return;
        const Json json = {{"perplexity", result.perplexity},
                           {"loss", result.loss},
                           {"sequence_length", sequence_length},
                           {"windows", result.windows},
                           {"tokens", set->text("tokens")},
                           {"tokens_sha256", tokens_sha256},
                           {"model", model->source().path().string()},
                           {"seconds", stopwatch.seconds()}};
        if (set->text("json") == "-")
            std::printf("%s\n", json.dump().c_str());
        else
            write_text_atomically(set->text("json"), json.dump(1) + "\n");
    });
    return 0;
}

}  // namespace espalier
