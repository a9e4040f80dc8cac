#include "io/file.h"
#include "io/request_file.h"
#include "src/base/clock.h"
#include "src/base/json.h"
#include "src/cli/commands.h"
#include "src/cli/measured_model.h"
#include "src/cli/output_file.h"
#include "src/evaluate/request_packing.h"

#include <cstdio>
#include <optional>

namespace espalier {

std::vector<OptionSpec> score_option_specs() {
    std::vector<OptionSpec> specs = {
        measured_model_option("model to score with"),
        {"requests", "contexts and continuations, from jobs/prepare_requests.py", {}, false, true},
        {"output",
         "JSON file to write: the items of each task, with the log-likelihood of every choice",
         {},
         false,
         true},
        {"config", "file with lines 'name = value' that set options", {}}};
    for (OptionSpec& spec : device_option_specs()) specs.push_back(std::move(spec));
    return specs;
}

namespace {

/// Of states that a rank keeps between two blocks: more go through the model in several parts. Reading a 7B model once
/// more takes as long as its blocks need for so many on one GPU.
constexpr std::size_t most_bytes_of_states = std::size_t{8} << 30;

std::size_t rows_of_part(const ModelConfig& config, int ranks) {
    return static_cast<std::size_t>(ranks) * (most_bytes_of_states / (config.hidden_size * sizeof(float)));
}

/// The items of each task with the likelihoods of their choices.
Json to_json(const RequestTable& requests, const std::vector<Likelihood>& likelihoods) {
    Json tasks = Json::array();
    for (const std::string& name : requests.tasks) tasks.push_back({{"name", name}, {"items", Json::array()}});
    for (std::size_t i = 0; i < requests.gold.size(); ++i) {
        Json logarithms = Json::array(), greedy = Json::array(), characters = Json::array(), bytes = Json::array();
        const IndexRange choices = requests.requests_of_item(i);
        for (std::size_t r = choices.begin; r < choices.end; ++r) {
            logarithms.push_back(likelihoods[r].logarithm);
            greedy.push_back(likelihoods[r].greedy);
            characters.push_back(requests.characters[r]);
            bytes.push_back(requests.bytes[r]);
        }
        tasks[static_cast<std::size_t>(requests.task[i])]["items"].push_back(
            {{"gold", requests.gold[i]},
             {"log_likelihoods", std::move(logarithms)},
             {"greedy", std::move(greedy)},
             {"characters", std::move(characters)},
             {"bytes", std::move(bytes)}});
    }
    return tasks;
}

}  // namespace

int score_command(Session& session, const CommandLine& line) {
    if (print_help(session, line, "score", "measures how likely a model finds answers of tasks", score_option_specs()))
        return 0;
    const Stopwatch stopwatch;
    std::optional<OptionSet> set;
    std::optional<MeasuredModel> model;
    RequestTable requests;
    RequestPacking packing;
    Progress progress(session.rank() == 0);
    session.agree([&] {
        set.emplace("score", score_option_specs(), line.arguments);
        model.emplace(session, *set, progress);
        const ModelConfig& config = model->source().config();
        requests = read_request_file(set->text("requests"), config.vocabulary);
        packing = pack_requests(requests, config, {.rows_of_part = rows_of_part(config, session.size())});
        if (session.rank() == 0) refuse_unwritable("output", set->text("output"));
        if (packing.cut > 0) {
            progress.line("note: " + std::to_string(packing.cut) + " of " + std::to_string(requests.size()) +
                          " contexts lose their beginning: the model takes sequences of " +
                          std::to_string(config.longest_sequence()) + " tokens");
        }
        model->prepare(*set);
    });
    std::vector<Likelihood> likelihoods(requests.size());
    auto request = packing.order.begin();
    const std::size_t parts = packing.parts.size();
    for (std::size_t part = 0; part < parts; ++part) {
        const std::string of_part =
            parts > 1 ? "part " + std::to_string(part + 1) + " of " + std::to_string(parts) + ", " : "";
        for (const Likelihood& one : model->measure(packing.parts[part], "leave out the longest requests", of_part)) {
            likelihoods[*request++] = one;
        }
    }
    session.agree([&] {
        if (session.rank() != 0) return;
        progress.live("");
        const Json json = {{"format", "espalier-scores"},
                           {"version", 1},
                           {"model", model->source().path().string()},
                           {"requests", set->text("requests")},
                           {"requests_sha256", requests.sha256},
                           {"cut", packing.cut},
                           {"seconds", stopwatch.seconds()},
                           {"tasks", to_json(requests, likelihoods)}};
        write_text_atomically(set->text("output"), json.dump() + "\n");
        std::printf("%zu continuations scored, in %s; jobs/task_report.py makes a table of such files\n",
                    likelihoods.size(), set->text("output").c_str());
        std::fflush(stdout);
    });
    return 0;
}

}  // namespace espalier
