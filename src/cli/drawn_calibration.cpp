#include "src/cli/drawn_calibration.h"

#include "mpi/tensor_communicator.h"
#include "src/base/clock.h"
#include "src/base/error.h"
#include "src/base/stop_request.h"
#include "src/base/units.h"
#include "src/cli/calibration_options.h"
#include "src/cli/generation_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

namespace espalier {

namespace {

/// Of each given sample, one after the other, `continuations` pieces of a quarter of its length, evenly from its begin
/// to its end: what drawn samples begin with. In the order of the pieces, so that neighbours are of different samples.
void set_beginnings(const RequestedTokens& requested, GenerationOptions& options) {
    constexpr std::size_t quarter = 4;
    const std::size_t length = requested.tokens.sequence_length, pieces = requested.continuations();
    options.prompt_length = std::max<std::size_t>(1, length / quarter);
    options.prompts_are_part = true;
    options.prompts.clear();
    for (std::size_t piece = 0; piece < pieces; ++piece) {
        const std::size_t begin = pieces == 1 ? 0 : piece * (length - options.prompt_length) / (pieces - 1);
        for (std::size_t sample = 0; sample < requested.given; ++sample) {
            const auto first = requested.tokens.ids.begin() + static_cast<std::ptrdiff_t>(sample * length + begin);
            options.prompts.insert(options.prompts.end(), first,
                                   first + static_cast<std::ptrdiff_t>(options.prompt_length));
        }
    }
}

GenerationOptions options_of(const DrawingRequest& request) {
    const RequestedTokens& requested = request.tokens;
    GenerationOptions options;
    options.samples = requested.tokens.samples - requested.given;
    options.sequence_length = requested.tokens.sequence_length;
    options.rule.seed = request.seed;
    options.first_number = requested.given;  // given samples may be draws of that seed themselves
    // Products of few rows are slow, and keys and values of many tokens are large; never by the memory that there is.
    constexpr std::size_t tokens_of_batch = 8192, most_samples = 128;
    const std::size_t by_length = std::clamp(tokens_of_batch / options.sequence_length, options.batch, most_samples);
    options.batch = std::min(by_length, options.samples);
    if (requested.given == 0)
        set_begin({}, request.source, options);
    else
        set_beginnings(requested, options);
    const std::size_t before = options.prompts_are_part ? options.prompt_length : 0;
    if (options.total_length() < 2 || options.sequence_length <= before)
        throw InputError(request.name + " leaves nothing to draw in samples of " +
                         std::to_string(options.sequence_length) + " token(s)");
    request.source.config().check_sequence_length(options.total_length() - 1);
    return options;
}

}  // namespace

void RequestedTokens::add_continuations(std::size_t continuations) {
    constexpr std::size_t most = std::size_t{1} << 30;  // tokens in all
    if (continuations > 0 && continuations >= most / asked / tokens.sequence_length) {
        throw InputError(fmt::format("{} continuations of {} samples of {} tokens are more than a billion tokens",
                                     continuations, asked, tokens.sequence_length));
    }
    tokens.samples = asked * (continuations + 1);
    if (!tokens.ids.empty()) tokens.ids.resize(tokens.samples * tokens.sequence_length);
}

RequestedTokens request_tokens(OptionSet& options, const std::string& name, std::size_t vocabulary,
                               std::size_t usual_samples) {
    const bool drawn = names_drawn_tokens(name);
    const TokenTable table =
        drawn ? shape_of_drawn_tokens(name) : read_token_file(name, vocabulary, TokenPurpose::calibration);
    RequestedTokens requested{choose_calibration(options, table, name, usual_samples), table.sha256};
    requested.asked = requested.tokens.samples;
    requested.given = drawn ? 0 : requested.asked;
    return requested;
}

DrawnCalibration draw_calibration(Session& session, const ChosenDevice& chosen, const DrawingRequest& request,
                                  const std::function<void()>& before_it, Progress& progress) {
    const ModelSource& source = request.source;
    const RequestedTokens& requested = request.tokens;
    GenerationOptions options;
    DrawnCalibration drawn;
    std::optional<TokenTable> kept;
    session.agree([&] {
        options = options_of(request);
        if (session.rank() == 0) before_it();
        drawn.recipe = recipe_of(options, source);
        if (requested.given > 0) drawn.recipe["continued_sha256"] = requested.sha256;
        if (!request.fresh) kept = kept_tokens(request.output, drawn.recipe, source.config().vocabulary);
    });
    // All ranks see one folder; should one of them not, all draw.
    const std::vector<char> all_have = session.world().all_gather_value(static_cast<char>(kept.has_value()));
    if (std::ranges::all_of(all_have, [](char has) { return has != 0; })) {
        drawn.table = std::move(*kept);
        return drawn;
    }
    const Stopwatch stopwatch;
    const TensorCommunicator tensors(session.world(), *chosen.device);
    const SayProgress step = [&](const std::string& text) {
        if (stop_requested()) {
            throw Error(ExitStatus::interrupted,
                        "stopped by " + name_of_signal(stop_signal()) +
                            " while tokens were drawn: none are kept, and the same command begins again (espalier "
                            "generate draws them into a file of their own)");
        }
        progress.step("drawing tokens: " + text);
    };
    const std::vector<std::int32_t> generated = generate_tokens(
        {.device = *chosen.device,
         .group = tensors.get(),
         .control = session.world(),
         .source = source,
         .progress = step,
         .memory = memory_of_rank(session, chosen),
         .advice = "use more ranks, or draw with espalier generate and a smaller --batch, and give the file"},
        options);
    chosen.device->reset_memory_peak();
    progress.live("");
    progress.restart();
    progress.line(fmt::format("drew {} samples of {} tokens from {}{} in {}", options.samples, options.sequence_length,
                              source.path().string(),
                              requested.given > 0 ? ", which go on from those of " + request.name : std::string(),
                              format_seconds(stopwatch.seconds())));
    const auto first = requested.tokens.ids.begin();
    std::vector<std::int32_t> ids(
        first, first + static_cast<std::ptrdiff_t>(requested.given * requested.tokens.sequence_length));
    ids.insert(ids.end(), generated.begin(), generated.end());
    drawn.table = table_of_drawn_tokens(requested.tokens.samples, requested.tokens.sequence_length, ids, drawn.recipe);
    return drawn;
}

}  // namespace espalier
