#include "src/plan/finetune_plan.h"

#include "src/base/error.h"
#include "src/base/name_table.h"
#include "src/base/units.h"
#include "src/finetune/training_step.h"
#include "src/plan/unread_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

namespace espalier {

namespace {

constexpr NameTable<StatePlace, 3> state_places = {
    {{{StatePlace::device, "device"}, {StatePlace::host, "host"}, {StatePlace::file, "file"}}}};

double bytes_of_blocks(const ModelSource& source) {
    return static_cast<double>(source.config().blocks.size() * source.storage().total_bytes(source.layout()));
}

std::size_t trained_values_of(const PlannedFinetuning& run) {
    const ModelSource& student = run.student;
    return student.config().blocks.size() * TrainedLayout::of_block(student.layout(), run.options).size() +
           TrainedLayout::of_end(student.layout(), run.options, student.config().hidden_size).size();
}

std::vector<FinetunePlaces> places_to_try(const PlannedFinetuning& run, const DeviceModel& device,
                                          const AskedPlaces& asked) {
    if (!device.is_gpu) return {places_on_cpu(run.options, asked)};
    std::vector<FinetunePlaces> places;
    for (const StatePlace states : {StatePlace::device, StatePlace::host}) {
        if (asked.states ? states != *asked.states : states == StatePlace::host && run.options.low_rank()) continue;
        for (const StoragePlace hidden_states : {StoragePlace::device, StoragePlace::host}) {
            for (const WeightPlace weights : {WeightPlace::resident, WeightPlace::shared}) {
                // Shares of one rank are all of the weights; of trained matrices states away from the device are.
                const bool helps = weights == WeightPlace::resident || run.ranks > 1 || states != StatePlace::device;
                if (asked.weights ? weights == *asked.weights : helps)
                    places.push_back({weights, hidden_states, states});
            }
        }
    }
    return places;
}

/// Ranks differ by a pass, and by a few rows of a matrix.
std::vector<std::size_t> ranks_to_look_at(std::size_t ranks) {
    if (ranks > 4) return {0, ranks / 2, ranks - 1};
    std::vector<std::size_t> all(ranks);
    std::iota(all.begin(), all.end(), std::size_t{0});
    return all;
}

}  // namespace

std::string_view name_of(StatePlace place) {
    return state_places.name_of(place);
}

std::string_view describe(StatePlace place) {
    switch (place) {
        case StatePlace::device:
            return "the device's memory";
        case StatePlace::host:
            return "host memory";
        case StatePlace::file:
            return "a file in --output";
    }
    throw BugError("internal error: a place of states");
}

FinetunePlaces places_on_cpu(const FinetuneOptions& options, const AskedPlaces& asked) {
    FinetunePlaces places;
    places.states = asked.states.value_or(options.low_rank() ? StatePlace::device : StatePlace::file);
    const bool is_in_states = places.states != StatePlace::device;
    places.weights = asked.weights.value_or(is_in_states ? WeightPlace::shared : WeightPlace::resident);
    return places;
}

std::uint64_t bytes_away(const PlannedFinetuning& run) {
    const FinetuneOptions& options = run.options;
    return options.low_rank() ? 0 : std::uint64_t{trained_values_of(run)} * kept_states(options).size() * sizeof(float);
}

Rehearsal rehearse_finetuning(const PlannedFinetuning& run, std::size_t rank, const DeviceModel& model,
                              const FinetunePlaces& places) {
    const UnreadSource student(run.student);
    std::optional<UnreadSource> teacher;
    if (run.teacher != nullptr) teacher.emplace(*run.teacher);
    VirtualClock clock;
    ModelledDevice device(model, clock);
    DryRunCommunicator group(static_cast<int>(rank), static_cast<int>(run.ranks), model.network.from_rank(0), clock,
                             DryRunCommunicator::Memory::none);
    DryRunCommunicator control(static_cast<int>(rank), static_cast<int>(run.ranks), model.network.from_rank(0), clock,
                               DryRunCommunicator::Memory::host);
    const std::vector<std::int32_t> ids(run.options.samples * run.options.sequence_length);
    const TrainingContext context = {
        .device = device,
        .group = group,
        .control = control,
        .options = run.options,
        .student = student,
        .teacher = teacher ? &*teacher : nullptr,
        .teacher_shares_head = run.teacher_shares_head,
        .ids = ids,
        .weights = places.weights,
        .hidden_states = places.hidden_states,
        // A file's bytes take as long as those of host memory, and none of it.
        .states = places.states == StatePlace::device ? StatePlace::device : StatePlace::host};
    PhaseClock phases(clock, {&group, &control});
    const auto mark = [&](const char* phase) {
        device.synchronize();
        phases.mark(phase);
    };
    TrainedValues values(context);
    OuterWeights outer(device, group, student, OuterWeights::Parts::all);
    std::optional<TeacherStates> states;
    if (teacher) states.emplace(context, outer, [](const std::string&) {});
    mark("teacher");
    values.start_end(outer.final_norm());
    StudentWeights weights(context, values);
    TrainingStep step(context, outer, weights, values, states ? &*states : nullptr);
    mark("start");
    if (run.options.held_out > 0) {
        static_cast<void>(step.measure(held_out_samples(run.options)));
        mark("look");
    }
    const double flops_before = device.flops();
    static_cast<void>(step.take(samples_of_step(run.options, 0), 1));
    mark("step");
    Rehearsal result;
    result.flops = device.flops() - flops_before;
    result.memory = device.memory().items_at_peak();
    const std::size_t in_file = places.states == StatePlace::file ? values.bytes_away() : 0;
    result.host_bytes = device.host_peak_bytes() - in_file;
    result.phases = phases.take();
    return result;
}

FinetuneMemory plan_finetune_memory(const PlannedFinetuning& run, std::span<const std::size_t> ranks,
                                    const DeviceModel& device, const AskedPlaces& asked) {
    FinetuneMemory least;
    for (const FinetunePlaces& places : places_to_try(run, device, asked)) {
        FinetuneMemory found{places, {places.hidden_states, {}}};
        for (const std::size_t rank : ranks) {
            std::vector<MemoryItem> items = rehearse_finetuning(run, rank, device, places).memory;
            if (total_bytes(items) > found.memory.total()) found.memory.items = std::move(items);
        }
        if (found.memory.total() <= device.tensor_bytes()) return found;
        if (least.memory.items.empty() || found.memory.total() < least.memory.total()) least = std::move(found);
    }
    const auto readable = [](std::size_t bytes) { return format_bytes(static_cast<double>(bytes)); };
    throw ResourceError("the GPU's " + readable(device.tensor_bytes()) + " do not hold the " +
                        readable(least.memory.total()) + " that this run needs at least (" +
                        describe(least.memory.items) +
                        "); use more ranks, a smaller --batch, --optimizer-state host, --train masked-lora or lora");
}

FinetunePlan plan_finetuning(const PlannedFinetuning& run, const DeviceModel& device, const AskedPlaces& asked) {
    FinetunePlan plan;
    plan.ranks = run.ranks;
    plan.trained_values = trained_values_of(run);
    plan.memory = plan_finetune_memory(run, ranks_to_look_at(run.ranks), device, asked);
    // The last rank has as many passes as any.
    Rehearsal rehearsal = rehearse_finetuning(run, run.ranks - 1, device, plan.memory.places);
    const auto seconds = [&](const char* phase) {
        const auto found = rehearsal.phases.find(phase);
        return found == rehearsal.phases.end() ? 0 : found->second.seconds;
    };
    const double file_bandwidth = device.file_bandwidth * static_cast<double>(run.ranks);
    plan.step_seconds = seconds("step");
    plan.look_seconds = seconds("look");
    plan.teacher_seconds =
        run.teacher == nullptr ? 0 : std::max(seconds("teacher"), bytes_of_blocks(*run.teacher) / file_bandwidth);
    plan.load_seconds = std::max(seconds("start"), bytes_of_blocks(run.student) / file_bandwidth);
    const double looks =
        run.options.held_out == 0
            ? 0
            : 1 + std::ceil(static_cast<double>(run.options.steps) / static_cast<double>(run.options.evaluate_steps));
    plan.run_seconds = plan.teacher_seconds + plan.load_seconds + looks * plan.look_seconds +
                       static_cast<double>(run.options.steps) * plan.step_seconds;
    plan.flops = rehearsal.flops;
    // Checkpoints pass vectors of a block through the host memory of the rank that writes it; the best values lie
    // there, unless they lie with the others.
    const std::size_t of_block = TrainedLayout::of_block(run.student.layout(), run.options).size() * sizeof(float);
    plan.host_bytes =
        process_bytes + rehearsal.host_bytes + 4 * of_block +
        (plan.memory.places.states == StatePlace::device ? plan.trained_values * sizeof(float) / run.ranks : 0) +
        (device.is_gpu ? 0 : plan.memory.memory.total());
    if (plan.memory.places.states == StatePlace::file) plan.file_bytes = bytes_away(run);
    return plan;
}

std::string describe(const FinetunePlan& plan, const FinetuneOptions& options, const DeviceModel& device) {
    std::string text;
    const auto line = [&](const std::string& what, const std::string& found) {
        text += fmt::format("{:<22}{}\n", what, found);
    };
    line("fine-tuning", fmt::format("{} towards {}, {:.1f} million values, on {} rank(s)", name_of(options.train),
                                    name_of(options.loss), static_cast<double>(plan.trained_values) / 1e6, plan.ranks));
    line("time", fmt::format("{}: {} steps of {}, {} held-out looks of {}", format_seconds(plan.run_seconds),
                             options.steps, format_seconds(plan.step_seconds), options.held_out == 0 ? "no" : "with",
                             format_seconds(plan.look_seconds)));
    if (plan.teacher_seconds > 0) line("of it the teacher", format_seconds(plan.teacher_seconds));
    line("weights", plan.memory.places.weights == WeightPlace::resident
                        ? "resident: all of them on every device"
                        : "shared: an equal part on each device, gathered block by block");
    if (!options.low_rank()) {
        const std::string size =
            plan.file_bytes > 0 ? " of " + format_bytes(static_cast<double>(plan.file_bytes)) : std::string();
        line("values and moments", std::string(describe(plan.memory.places.states)) + size);
    }
    line("host memory", format_bytes(static_cast<double>(plan.host_bytes)) + " a rank");
    line("rates", device.name + ": " + device.origin);
    return text + "\n" + describe(plan.memory.memory, device);
}

Json to_json(const FinetunePlan& plan) {
    Json json = to_json(plan.memory.memory);
    json.update({{"ranks", plan.ranks},
                 {"trained_values", plan.trained_values},
                 {"weights", plan.memory.places.weights == WeightPlace::resident ? "resident" : "shared"},
                 {"optimizer_state", name_of(plan.memory.places.states)},
                 {"optimizer_state_file_bytes", plan.file_bytes},
                 {"run_seconds", plan.run_seconds},
                 {"step_seconds", plan.step_seconds},
                 {"look_seconds", plan.look_seconds},
                 {"teacher_seconds", plan.teacher_seconds},
                 {"load_seconds", plan.load_seconds},
                 {"flops", plan.flops},
                 {"host_bytes", plan.host_bytes}});
    return json;
}

}  // namespace espalier
