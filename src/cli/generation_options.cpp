#include "src/cli/generation_options.h"

#include "io/checksum.h"
#include "io/token_file.h"
#include "src/base/error.h"
#include "src/base/json.h"
#include "src/cli/calibration_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace espalier {

std::vector<OptionSpec> sampling_option_specs() {
    return {
        {"temperature", "logits are divided by it; 0: always the most likely token", "1"},
        {"top-p", "draw among the most likely tokens that have this probability together", "1"},
        {"seed", "of the draws", "0"},
        {"begin",
         "what stands before each sample: bos (the token of config.json) or a token's id, which are not written, or "
         "vocabulary (a token of its own, drawn evenly and written) [default: bos where config.json has one]",
         {}},
        {"batch", "samples that go through the model together; decides how their numbers are rounded", "32"}};
}

namespace {

/// bos_token_id of config.json, when it is one.
std::optional<std::int32_t> begin_of_document(const ModelSource& source) {
    const Json config = Json::parse(source.config_text());
    if (!config.contains("bos_token_id") || !config["bos_token_id"].is_number_integer()) return std::nullopt;
    const auto id = config["bos_token_id"].get<std::int64_t>();
    if (id < 0 || static_cast<std::size_t>(id) >= source.config().vocabulary) return std::nullopt;
    return static_cast<std::int32_t>(id);
}

std::int32_t token_of_text(const std::string& text, std::size_t vocabulary) {
    std::size_t id = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
    if (error != std::errc() || end != text.data() + text.size() || id >= vocabulary) {
        throw InputError(fmt::format("--begin '{}' is not bos, vocabulary or a token's id below {}", text, vocabulary));
    }
    return static_cast<std::int32_t>(id);
}

void read_prompts(const OptionSet& options, const ModelSource& source, GenerationOptions& parsed) {
    const TokenTable prompts =
        read_token_file(options.text("prompts"), source.config().vocabulary, TokenPurpose::evaluation);
    if (options.given("begin")) throw InputError("give --prompts or --begin, not both");
    if (prompts.columns >= parsed.sequence_length) {
        throw InputError(fmt::format("--sequence-length {} leaves nothing to generate behind prompts of {} tokens",
                                     parsed.sequence_length, prompts.columns));
    }
    parsed.prompts = prompts.ids;
    parsed.prompt_length = prompts.columns;
    parsed.prompts_are_part = true;
}

}  // namespace

void set_begin(const std::string& begin, const ModelSource& source, GenerationOptions& options) {
    const std::optional<std::int32_t> bos = begin_of_document(source);
    options.prompt_length = 1;
    options.prompts_are_part = begin == "vocabulary" || (begin.empty() && !bos);
    if (options.prompts_are_part)
        options.prompts = prompts_from_vocabulary(options.samples, source.config().vocabulary, options.rule.seed);
    else if (begin.empty() || begin == "bos") {
        if (!bos) throw InputError("--begin bos: the model's config.json has no bos_token_id");
        options.prompts = {*bos};
    } else {
        options.prompts = {token_of_text(begin, source.config().vocabulary)};
    }
}

GenerationOptions parse_generation_options(OptionSet& options, const ModelSource& source, std::size_t ranks) {
    GenerationOptions parsed;
    parsed.samples = options.whole("samples", 1);
    if (!options.has("sequence-length")) {
        const std::size_t longest = source.config().longest_sequence();
        options.set_effective("sequence-length", std::to_string(std::min(longest_by_default, longest - 1)), "model");
    }
    parsed.sequence_length = options.whole("sequence-length", 1);
    parsed.rule.temperature = options.positive("temperature", true);
    constexpr double coldest = 1e-3, hottest = 1e3;
    const double temperature = parsed.rule.temperature;
    if (temperature != 0 && (temperature < coldest || temperature > hottest)) {
        throw InputError(fmt::format("--temperature {} is not 0, nor from {:g} to {:g}", options.text("temperature"),
                                     coldest, hottest));
    }
    parsed.rule.top_p = options.positive("top-p");
    if (parsed.rule.top_p > 1) throw InputError("--top-p " + options.text("top-p") + " is more than 1");
    parsed.rule.seed = options.whole("seed", 0);
    parsed.batch = std::min<std::size_t>(options.whole("batch", 1), parsed.samples);
    if (options.has("prompts"))
        read_prompts(options, source, parsed);
    else
        set_begin(options.has("begin") ? options.text("begin") : std::string(), source, parsed);
    if (parsed.total_length() < 2) throw InputError("--sequence-length 1 leaves nothing to generate");
    source.config().check_sequence_length(parsed.total_length() - 1);
    if (options.has("stages")) {
        parsed.stages = options.whole("stages", 1);
        if (ranks % parsed.stages != 0 || parsed.stages > source.config().blocks.size()) {
            throw InputError(fmt::format("--stages {} does not divide the {} rank(s), or exceeds the model's {} blocks",
                                         parsed.stages, ranks, source.config().blocks.size()));
        }
    }
    return parsed;
}

DrawingRecipe recipe_of(const GenerationOptions& options, const ModelSource& source) {
    // Prompts by their sum: where they come from is known to who gave them.
    const auto bytes = std::as_bytes(std::span(options.prompts));
    DrawingRecipe recipe = {
        {"model", source.identity()},
        {"samples", std::to_string(options.samples)},
        {"sequence_length", std::to_string(options.sequence_length)},
        {"temperature", fmt::format("{:g}", options.rule.temperature)},
        {"top_p", fmt::format("{:g}", options.rule.top_p)},
        {"seed", std::to_string(options.rule.seed)},
        {"batch", std::to_string(options.batch)},
        {"prompts_sha256", sha256(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()))},
        {"prompts_are_part", options.prompts_are_part ? "true" : "false"}};
    if (options.first_number > 0) recipe["first_number"] = std::to_string(options.first_number);
    return recipe;
}

}  // namespace espalier
