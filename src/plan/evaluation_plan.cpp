#include "src/plan/evaluation_plan.h"

#include "src/base/units.h"
#include "src/evaluate/likelihood_pass.h"
#include "src/plan/unread_source.h"

#include <fmt/format.h>

#include <algorithm>

namespace espalier {

namespace {

double bytes_of_outer(const ModelSource& source, OuterTensor tensor) {
    return static_cast<double>(source.outer_rows(tensor) * source.outer_row_bytes(tensor));
}

}  // namespace

Rehearsal rehearse_evaluation(const PlannedEvaluation& evaluation, std::size_t rank, const DeviceModel& model,
                              StoragePlace hidden_states) {
    const UnreadSource source(evaluation.source);
    VirtualClock clock;
    ModelledDevice device(model, clock);
    DryRunCommunicator group(static_cast<int>(rank), static_cast<int>(evaluation.ranks), model.network.from_rank(0),
                             clock, DryRunCommunicator::Memory::none);
    const auto say_nothing = [](const std::string&) {};
    PhaseClock phases(clock, {&group});
    LikelihoodPass pass(device, group, source, evaluation.passes, hidden_states);
    device.synchronize();
    phases.mark("embed");
    pass.run_blocks(say_nothing);
    device.synchronize();
    phases.mark("blocks");
    static_cast<void>(pass.run_head(say_nothing));
    phases.mark("head");
    Rehearsal result;
    result.flops = device.flops();
    result.memory = device.memory().items_at_peak();
    result.host_bytes = device.host_peak_bytes();
    result.phases = phases.take();
    return result;
}

MemoryPlan plan_evaluation_memory(const PlannedEvaluation& evaluation, std::size_t rank, const DeviceModel& device) {
    return choose_place(device.tensor_bytes(), "evaluation", evaluation.advice, [&](StoragePlace place) {
        return rehearse_evaluation(evaluation, rank, device, place).memory;
    });
}

EvaluationPlan plan_evaluation(const PlannedEvaluation& evaluation, const DeviceModel& device) {
    const ModelSource& source = evaluation.source;
    EvaluationPlan plan;
    plan.ranks = evaluation.ranks;
    const std::size_t rank = evaluation.ranks - 1;
    plan.memory = plan_evaluation_memory(evaluation, rank, device);
    const Rehearsal rehearsal = rehearse_evaluation(evaluation, rank, device, plan.memory.hidden_states);
    plan.flops = rehearsal.flops;
    plan.host_bytes = process_bytes + rehearsal.host_bytes + (device.is_gpu ? 0 : plan.memory.total());
    const double blocks =
        static_cast<double>(source.config().blocks.size() * source.storage().total_bytes(source.layout()));
    const double embedding = bytes_of_outer(source, OuterTensor::embedding);
    const double head = bytes_of_outer(source, OuterTensor::head);
    const auto ranks = static_cast<double>(plan.ranks);
    // Every rank reads the embedding for its own windows, and its part of every block beside the computation; the head
    // is read by one for all.
    plan.bytes_read = blocks + ranks * embedding + head;
    const double outer_seconds = (embedding + head) / device.file_bandwidth;
    const double block_seconds = blocks / device.file_bandwidth / ranks;
    plan.file_seconds = block_seconds + outer_seconds;
    plan.run_seconds = outer_seconds + rehearsal.phases.at("embed").seconds +
                       std::max(rehearsal.phases.at("blocks").seconds, block_seconds) +
                       rehearsal.phases.at("head").seconds;
    return plan;
}

std::string describe(const EvaluationPlan& plan, const std::string& what, const DeviceModel& device) {
    std::string text;
    const auto line = [&](const std::string& what, const std::string& found) {
        text += fmt::format("{:<22}{}\n", what, found);
    };
    line("evaluation", fmt::format("{} on {} rank(s)", what, plan.ranks));
    line("time",
         format_seconds(plan.run_seconds) + ", of which files alone would take " + format_seconds(plan.file_seconds));
    line("host memory", format_bytes(static_cast<double>(plan.host_bytes)) + " a rank");
    line("rates", device.name + ": " + device.origin);
    return text + "\n" + describe(plan.memory, device);
}

Json to_json(const EvaluationPlan& plan) {
    Json json = to_json(plan.memory);
    json.update({{"ranks", plan.ranks},
                 {"run_seconds", plan.run_seconds},
                 {"file_seconds", plan.file_seconds},
                 {"host_bytes", plan.host_bytes},
                 {"flops", plan.flops},
                 {"bytes_read", plan.bytes_read}});
    return json;
}

}  // namespace espalier
