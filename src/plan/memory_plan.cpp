#include "src/plan/memory_plan.h"

#include "src/base/error.h"
#include "src/base/units.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

namespace espalier {

namespace {

/// Of the rank's groups the one that searches the learning rate, if there is one, else the first: they differ in
/// nothing else (a rank has several only where each has one rank).
const BlockGroup& group_to_rehearse(const RehearsedRun& run) {
    const Topology& topology = run.topology;
    for (std::size_t round = 0; round < topology.rounds(); ++round) {
        const std::optional<std::size_t> g = topology.group_of(run.rank, round);
        if (g && topology.groups()[*g].blocks.contains(run.options.first_pruned_block())) return topology.groups()[*g];
    }
    return topology.groups()[topology.group_of(run.rank, 0).value()];
}

/// Blocks of one group between which a rank's memory differs.
std::vector<RehearsedRun> different_blocks(RehearsedRun run) {
    const BlockGroup& group = group_to_rehearse(run);
    std::vector<RehearsedRun> runs;
    const bool may_search = run.options.method.optimises_regionally() && !run.options.ro.learning_rate;
    bool with_owned = false, with_other = false;
    for (run.block = group.blocks.begin; run.block < group.blocks.end; ++run.block) {
        const bool owned = group.ranks[static_cast<std::size_t>(group.owner_of(run.block))] == run.rank;
        bool& rehearsed = owned ? with_owned : with_other;
        run.searches_rate = may_search && run.block == run.options.first_pruned_block();
        if (rehearsed && !run.searches_rate) continue;
        runs.push_back(run);
        rehearsed = true;  // also by a block with a search, which needs whatever one without needs
    }
    return runs;
}

}  // namespace

DeviceModel counting_model(const Device& device) {
    constexpr ProductRates any_rates = {1, 1, 1, 1};
    DeviceModel model;
    model.name = device.description();
    model.is_gpu = device.multiprocessors() > 0;
    model.multiprocessors = device.multiprocessors();
    model.memory_bytes = device.memory().budget();
    model.sixteen_bit = model.tf32 = model.float32 = any_rates;
    return model;
}

std::string note_about_host_memory(Communicator& world, const MemoryPlan& mine) {
    const std::vector<std::size_t> needs = world.all_gather_value(
        mine.hidden_states == StoragePlace::host ? std::max<std::size_t>(1, mine.total()) : std::size_t{0});
    const auto ranks =
        static_cast<std::size_t>(std::count_if(needs.begin(), needs.end(), [](auto n) { return n > 0; }));
    if (ranks == 0) return "";
    return fmt::format("the hidden states{} lie in host memory and travel to the GPU and back; the rest takes {}{}",
                       ranks == needs.size() ? "" : fmt::format(" of {} of the {} ranks", ranks, needs.size()),
                       format_bytes(static_cast<double>(*std::max_element(needs.begin(), needs.end()))),
                       needs[static_cast<std::size_t>(world.rank())] > 0 ? ": " + describe(mine.items) : "");
}

MemoryPlan choose_place(std::size_t budget, const std::string& what, const std::string& advice,
                        const std::function<std::vector<MemoryItem>(StoragePlace)>& items_with) {
    MemoryPlan plan{StoragePlace::device, items_with(StoragePlace::device)};
    if (plan.total() <= budget) return plan;
    plan = {StoragePlace::host, items_with(StoragePlace::host)};
    if (plan.total() <= budget) return plan;
    const auto readable = [](std::size_t bytes) { return format_bytes(static_cast<double>(bytes)); };
    throw ResourceError("the GPU's " + readable(budget) + " do not hold the " + readable(plan.total()) + " that this " +
                        what + " needs even with its hidden states in host memory (" + describe(plan.items) + "); " +
                        advice + ", or a larger --gpu-memory");
}

MemoryPlan plan_memory(const RehearsedRun& run, const DeviceModel& device) {
    const auto items_with = [&](StoragePlace place) {
        std::vector<MemoryItem> most;
        const auto consider = [&](const Rehearsal& rehearsal) {
            if (rehearsal.peak_bytes() > total_bytes(most)) most = rehearsal.memory;
        };
        for (const RehearsedRun& block : different_blocks(run)) consider(rehearse(block, device, place));
        if (run.topology.groups().size() > 1) {
            RehearsedRun front = run;
            front.block = group_to_rehearse(run).blocks.begin;
            consider(rehearse_dense_front(front, device, place));
        }
        return most;
    };
    return choose_place(
        device.tensor_bytes(), "run",
        "use more ranks with --ro-batch, fewer ranks in each of more --block-groups, a shorter sequence", items_with);
}

std::string describe(const MemoryPlan& memory, const DeviceModel& device) {
    std::string note;
    if (device.is_gpu) {
        note = "of " + format_bytes(static_cast<double>(device.memory_bytes)) + " on each device";
        if (memory.hidden_states == StoragePlace::host) note += "; hidden states in host memory";
    }
    std::string text = fmt::format("{:<22}{:>10}  {}\n", device.is_gpu ? "device memory" : "of it tensors",
                                   format_bytes(static_cast<double>(memory.total())), note);
    for (const MemoryItem& item : largest_first(memory.items)) {
        text += fmt::format("  {:<36}{:>10}\n", item.name, format_bytes(static_cast<double>(item.bytes)));
    }
    return text;
}

Json to_json(const MemoryPlan& memory) {
    Json items = Json::object();
    for (const MemoryItem& item : memory.items) items[item.name] = item.bytes;
    return {{"memory_bytes", memory.total()},
            {"hidden_states", memory.hidden_states == StoragePlace::host ? "host" : "device"},
            {"memory", items}};
}

}  // namespace espalier
