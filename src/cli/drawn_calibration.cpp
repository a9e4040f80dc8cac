#include "src/cli/drawn_calibration.h"

#include "mpi/tensor_communicator.h"
#include "src/base/clock.h"
#include "src/base/error.h"
#include "src/base/stop_request.h"
#include "src/base/units.h"
#include "src/cli/generation_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

namespace espalier {

TokenTable read_or_name_tokens(const std::string& name, std::size_t vocabulary) {
    if (names_drawn_tokens(name)) return shape_of_drawn_tokens(name);
    return read_token_file(name, vocabulary, TokenPurpose::calibration);
}

DrawnCalibration draw_calibration(Session& session, const ChosenDevice& chosen, const DrawingRequest& request,
                                  const std::function<void()>& before_it, Progress& progress) {
    const ModelSource& source = request.source;
    GenerationOptions options;
    DrawnCalibration drawn;
    std::optional<TokenTable> kept;
    session.agree([&] {
        if (session.rank() == 0) before_it();
        const TokenTable shape = shape_of_drawn_tokens(request.name);
        options.samples = shape.rows;
        options.sequence_length = shape.columns;
        options.rule.seed = request.seed;
        options.batch = std::min(options.batch, options.samples);
        set_begin({}, source, options);
        if (options.total_length() < 2)
            throw InputError(request.name + " leaves nothing to draw after the first token");
        source.config().check_sequence_length(options.total_length() - 1);
        drawn.recipe = recipe_of(options, source);
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
    const std::vector<std::int32_t> ids = generate_tokens(
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
    progress.line(fmt::format("drew {} samples of {} tokens from {} in {}", options.samples, options.sequence_length,
                              source.path().string(), format_seconds(stopwatch.seconds())));
    drawn.table = table_of_drawn_tokens(options.samples, options.sequence_length, ids, drawn.recipe);
    return drawn;
}

}  // namespace espalier
