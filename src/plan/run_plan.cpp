#include "src/plan/run_plan.h"

#include "mpi/ordered_sum.h"
#include "src/base/error.h"
#include "src/blocks/weight_partition.h"
#include "src/samples/drawn_samples.h"
#include "src/samples/sample_split.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <tuple>
#include <utility>

namespace espalier {

namespace {

/// Groups of more ranks have their alike ranks rehearsed once: their parts of matrices differ by some rows.
constexpr std::size_t most_rehearsed = 16;

double sent_by(const CommunicationLedger& ledger) {
    double bytes = 0;
    for (const CommunicationCount& count : ledger.counts) bytes += static_cast<double>(count.bytes_sent);
    return bytes;
}

double seconds_of(const Rehearsal& rehearsal, const std::string& phase) {
    const auto found = rehearsal.phases.find(phase);
    return found == rehearsal.phases.end() ? 0 : found->second.seconds;
}

Topology topology_of(const PlannedModel& model, const PruneOptions& options, std::size_t ranks) {
    return {ranks, model.config.blocks.size(), options.block_groups, options.samples, options.shards};
}

double read_block_bytes(const PlannedModel& model) {
    return static_cast<double>(model.storage.total_bytes(model.layout));
}

double written_block_bytes(const PlannedModel& model, const PruneOptions& options) {
    BlockStorage written = model.storage;
    written.matrix_dtype = options.output_dtype;
    const std::size_t mask_bytes = model.layout.weights() / 8;
    return static_cast<double>(written.total_bytes(model.layout) + mask_bytes);
}

/// A block that the file system alone would take so long for: while one is computed, those before and after it are
/// written and read by all ranks of the group, in both directions at once.
double file_seconds_of_block(const PlannedModel& model, const PruneOptions& options, const DeviceModel& device,
                             std::size_t members) {
    const double bytes = std::max(read_block_bytes(model), written_block_bytes(model, options));
    return bytes / device.file_bandwidth / static_cast<double>(members);
}

/// One block of a group, played by its owner: of those that own a block the one that holds the most samples, the first
/// of several.
RehearsedRun owner_in(const PlannedModel& model, const PruneOptions& options, const Topology& topology,
                      const BlockGroup& group) {
    const auto samples = [&](std::size_t block) {
        return topology.samples_of(group, static_cast<std::size_t>(group.owner_of(block))).size();
    };
    std::size_t chosen = group.blocks.begin;
    for (std::size_t block = chosen; block < group.blocks.end; ++block) {
        if (samples(block) > samples(chosen)) chosen = block;
    }
    const int rank = group.ranks[static_cast<std::size_t>(group.owner_of(chosen))];
    return {.options = options, .model = model, .topology = topology, .rank = rank, .block = chosen};
}

/// What the time of a block depends on: the number of ranks, and the first that is on another machine than the first.
struct GroupKind {
    std::size_t ranks, border;
    bool operator<(const GroupKind& other) const {
        return std::tie(ranks, border) < std::tie(other.ranks, other.border);
    }
};

GroupKind kind_of(const BlockGroup& group, const DeviceModel& device) {
    const std::size_t per_machine = device.network.ranks_per_machine, ranks = group.ranks.size();
    const std::size_t on_the_first = per_machine - static_cast<std::size_t>(group.ranks.front()) % per_machine;
    return {ranks, std::min(ranks, on_the_first)};
}

struct GroupRehearsal {
    const BlockGroup* group = nullptr;  ///< the first of its kind
    Rehearsal block;
    double seconds = 0;
};

std::map<GroupKind, GroupRehearsal> rehearse_groups(const PlannedModel& model, const PruneOptions& options,
                                                    const Topology& topology, const DeviceModel& device,
                                                    StoragePlace hidden_states) {
    std::map<GroupKind, GroupRehearsal> kinds;
    for (const BlockGroup& group : topology.groups()) {
        const auto [place, is_new] = kinds.try_emplace(kind_of(group, device));
        if (!is_new) continue;
        GroupRehearsal& rehearsed = place->second;
        rehearsed.group = &group;
        rehearsed.block = rehearse(owner_in(model, options, topology, group), device, hidden_states);
        rehearsed.seconds =
            std::max(rehearsed.block.seconds(), file_seconds_of_block(model, options, device, group.ranks.size()));
    }
    return kinds;
}

const GroupRehearsal& slowest_of(const std::map<GroupKind, GroupRehearsal>& kinds) {
    return std::max_element(kinds.begin(), kinds.end(),
                            [](const auto& a, const auto& b) { return a.second.seconds < b.second.seconds; })
        ->second;
}

/// The rank with the most samples on their way to later groups, the first of several.
RehearsedRun dense_rank(const PlannedModel& model, const PruneOptions& options, const Topology& topology) {
    int busiest = 0;
    for (int rank = 1; rank < static_cast<int>(topology.ranks()); ++rank) {
        if (topology.dense_samples_of(rank).size() > topology.dense_samples_of(busiest).size()) busiest = rank;
    }
    const BlockGroup& group = topology.groups()[topology.group_of(busiest, 0).value()];
    return {.options = options, .model = model, .topology = topology, .rank = busiest, .block = group.blocks.begin};
}

/// Dense blocks before the last group.
std::size_t dense_blocks(const Topology& topology) {
    return topology.groups().back().blocks.begin;
}

/// Beside what a rehearsal holds: the next block's part on its way, and finished blocks that are still being written.
std::size_t host_bytes_of(const PlannedModel& model, const PruneOptions& options, const RunPlan& plan,
                          const DeviceModel& device) {
    const auto part = static_cast<std::size_t>(read_block_bytes(model)) / plan.ranks_of_group;
    const auto written = static_cast<std::size_t>(written_block_bytes(model, options)) + model.layout.weights();
    const std::size_t more_being_written = device.is_gpu ? 2 : 0;
    const std::size_t bytes =
        process_bytes + std::max(plan.block.host_bytes, plan.dense.host_bytes) + part + more_being_written * written;
    return device.is_gpu ? bytes : bytes + plan.memory.total();
}

/// What follows from the rehearsals.
void finish(RunPlan& plan, const PlannedModel& model, const PruneOptions& options, const DeviceModel& device) {
    const Topology topology = topology_of(model, options, plan.ranks);
    const double of_files = file_seconds_of_block(model, options, device, plan.ranks_of_group);
    plan.bound_by_files = of_files > plan.block.seconds();
    plan.block_seconds = std::max(plan.block.seconds(), of_files);
    std::size_t readers = plan.ranks_of_group;  // of the first block
    if (plan.block_groups > 1) {
        readers = plan.ranks;
        const double read = read_block_bytes(model) / device.file_bandwidth / static_cast<double>(readers);
        const double block = std::max(seconds_of(plan.dense, "load") + seconds_of(plan.dense, "pass"), read);
        plan.dense_seconds = static_cast<double>(dense_blocks(topology)) * block +
                             static_cast<double>(plan.block_groups - 1) * seconds_of(plan.dense, "hand_over");
    }
    plan.file_seconds = (read_block_bytes(model) / static_cast<double>(readers) + written_block_bytes(model, options)) /
                        device.file_bandwidth;
    plan.run_seconds = plan.dense_seconds + plan.blocks_in_a_row * plan.block_seconds + plan.file_seconds;
}

/// Samples of a range that a reconstruction holds out.
std::size_t held_out_of(const PruneOptions& options, IndexRange samples) {
    if (!options.method.reconstructs()) return 0;
    const std::vector<std::size_t> held_out = split_samples(options.samples).held_out;
    return static_cast<std::size_t>(std::ranges::count_if(held_out, [&](auto n) { return samples.contains(n); }));
}

/// What a rank's memory depends on beside the blocks: ranks with the same take the same.
std::vector<std::size_t> needs_of(const PruneOptions& options, const Topology& topology, const BlockGroup& group,
                                  const WeightPartition& partition, std::size_t member) {
    const auto partials = [](std::size_t begin, std::size_t end) {
        std::size_t most = 0;
        for (std::size_t leaf = begin; leaf < end; ++leaf) {
            most = std::max(most, nodes_of_leaves(begin, leaf).size() + 1);
        }
        return most;
    };
    const std::size_t members = group.ranks.size();
    const IndexRange shards = topology.shards_of(group, member);
    std::vector<std::size_t> needs = {topology.samples_of(group, member).size(),
                                      topology.dense_samples_of(group.ranks[member]).size(), partition.size_of(member),
                                      partials(shards.begin, shards.end),
                                      nodes_of_leaves(shards.begin, shards.end).size()};
    if (!options.method.optimises()) return needs;
    if (options.method.reconstructs()) needs.push_back(held_out_of(options, topology.samples_of(group, member)));
    const bool reconstructs = options.method.reconstructs();
    const std::size_t training = split_samples(options.samples).training.size();
    const std::size_t batch = reconstructs ? std::min(options.reconstruction.batch, training) : options.ro.batch;
    for (const std::size_t samples : {batch, (reconstructs ? training : options.ro.samples) % batch}) {
        const std::vector<std::size_t> offsets =
            StepAssignment::spread(members, options.samples_of_pass()).offsets(samples);
        needs.push_back(offsets[member + 1] - offsets[member]);
        needs.push_back(partials(offsets[member], offsets[member + 1]));
        needs.push_back(nodes_of_leaves(offsets[member], offsets[member + 1]).size());
    }
    return needs;
}

/// Ranks of a group that differ in their needs, some of them where that would be too many.
std::vector<int> different_ranks(const PlannedModel& model, const PruneOptions& options, const Topology& topology,
                                 const BlockGroup& group) {
    const WeightPartition partition = WeightPartition::balanced(model.layout, group.ranks.size());
    std::set<std::vector<std::size_t>> seen;
    std::vector<int> ranks;
    for (std::size_t member = 0; member < group.ranks.size() && ranks.size() < most_rehearsed; ++member) {
        if (seen.insert(needs_of(options, topology, group, partition, member)).second)
            ranks.push_back(group.ranks[member]);
    }
    return ranks;
}

MemoryPlan plan_largest_memory(const PlannedModel& model, const PruneOptions& options, const Topology& topology,
                               const DeviceModel& device) {
    std::set<int> ranks;
    std::set<GroupKind> kinds;
    for (const BlockGroup& group : topology.groups()) {
        // On the way to later groups ranks hold dense states beside their own, and groups of one kind are not alike.
        const bool is_last = &group == &topology.groups().back();
        if (!kinds.insert(kind_of(group, device)).second && !is_last) continue;
        for (const int rank : different_ranks(model, options, topology, group)) ranks.insert(rank);
    }
    if (topology.groups().size() > 1) ranks.insert(dense_rank(model, options, topology).rank);
    MemoryPlan most;
    bool in_host_memory = false;  // each rank decides for itself
    for (const int rank : ranks) {
        MemoryPlan plan = plan_memory({.options = options, .model = model, .topology = topology, .rank = rank}, device);
        in_host_memory = in_host_memory || plan.hidden_states == StoragePlace::host;
        if (plan.total() > most.total()) most = std::move(plan);
    }
    if (in_host_memory) most.hidden_states = StoragePlace::host;
    return most;
}

/// All but memory.
RunPlan plan_times(const PlannedModel& model, const PruneOptions& options, std::size_t ranks, const DeviceModel& device,
                   StoragePlace hidden_states) {
    const Topology topology = topology_of(model, options, ranks);
    std::map<GroupKind, GroupRehearsal> kinds = rehearse_groups(model, options, topology, device, hidden_states);
    const GroupRehearsal& slowest = slowest_of(kinds);
    RunPlan plan;
    plan.ranks = ranks;
    plan.block_groups = options.block_groups;
    plan.shards = options.shards;
    plan.ro_batch = options.ro.batch;
    plan.ranks_of_group = slowest.group->ranks.size();
    for (std::size_t member = 0; member < plan.ranks_of_group; ++member) {
        if (topology.samples_of(*slowest.group, member).size() == 0) ++plan.ranks_without_samples;
    }
    for (std::size_t round = 0; round < topology.rounds(); ++round) {
        const IndexRange groups = topology.groups_of_round(round);
        double longest = 0;
        for (std::size_t g = groups.begin; g < groups.end; ++g) {
            const BlockGroup& group = topology.groups()[g];
            const double seconds = kinds.at(kind_of(group, device)).seconds;
            longest = std::max(longest, static_cast<double>(group.blocks.size()) * seconds / slowest.seconds);
        }
        plan.blocks_in_a_row += longest;
    }
    plan.block = slowest.block;
    if (options.block_groups > 1) {
        plan.dense = rehearse_dense_front(dense_rank(model, options, topology), device, hidden_states);
    }
    finish(plan, model, options, device);
    return plan;
}

/// Numbers of block groups worth trying: those with which the longest group is shorter than with one group fewer.
std::vector<std::size_t> group_choices(const PlannedModel& model, const PlanChoice& choice, std::size_t ranks) {
    if (choice.block_groups) return {*choice.block_groups};
    const std::size_t blocks = model.config.blocks.size();
    const auto longest = [&](std::size_t groups) { return (blocks + groups - 1) / groups; };
    std::vector<std::size_t> choices = {1};
    for (std::size_t groups = 2; groups <= std::min(ranks, blocks); ++groups) {
        if (longest(groups) < longest(groups - 1) && ranks % groups == 0) choices.push_back(groups);
    }
    return choices;
}

}  // namespace

RunPlan plan_run(const PlannedModel& model, const PruneOptions& options, std::size_t ranks, const DeviceModel& device) {
    const MemoryPlan memory = plan_largest_memory(model, options, topology_of(model, options, ranks), device);
    RunPlan plan = plan_times(model, options, ranks, device, memory.hidden_states);
    plan.memory = memory;
    plan.host_bytes = host_bytes_of(model, options, plan, device);
    return plan;
}

RunPlan plan_on_device(const PlannedModel& model, const PruneOptions& options, std::size_t ranks,
                       const DeviceModel& rates, Device& device, const RehearsalData& data) {
    RunPlan plan = plan_run(model, options, ranks, rates);
    const Topology topology = topology_of(model, options, ranks);
    const StoragePlace hidden_states = plan.memory.hidden_states;
    const auto kinds = rehearse_groups(model, options, topology, rates, hidden_states);
    const RehearsedRun played = owner_in(model, options, topology, *slowest_of(kinds).group);
    plan.block = rehearse(played, rates.network, device, data, hidden_states);
    if (options.block_groups > 1) {
        plan.dense =
            rehearse_dense_front(dense_rank(model, options, topology), rates.network, device, data, hidden_states);
    }
    plan.memory.items = plan.block.peak_bytes() >= plan.dense.peak_bytes() ? plan.block.memory : plan.dense.memory;
    finish(plan, model, options, rates);
    return plan;
}

RunTotals count_totals(const PlannedModel& model, const PruneOptions& options, std::size_t ranks,
                       const DeviceModel& device) {
    const Topology topology = topology_of(model, options, ranks);
    const auto blocks = static_cast<double>(model.config.blocks.size());
    RunTotals totals;
    totals.bytes_read = blocks * read_block_bytes(model);
    totals.bytes_written = blocks * written_block_bytes(model, options);
    std::map<GroupKind, std::pair<double, double>> of_block;  // flops and bytes of all ranks
    for (const BlockGroup& group : topology.groups()) {
        const auto [place, is_new] = of_block.try_emplace(kind_of(group, device));
        auto& [flops, bytes] = place->second;
        if (is_new) {
            // Ranks that own the block, or hold as many samples and shards, do alike.
            RehearsedRun run = owner_in(model, options, topology, group);
            const int owner = run.rank;
            std::map<std::array<std::size_t, 4>, std::pair<double, double>> alike;
            for (std::size_t member = 0; member < group.ranks.size(); ++member) {
                run.rank = group.ranks[member];
                const IndexRange shards = topology.shards_of(group, member);
                const auto [found, is_first] = alike.try_emplace(
                    {run.rank == owner ? std::size_t{1} : 0, topology.samples_of(group, member).size(), shards.size(),
                     held_out_of(options, topology.samples_of(group, member))});
                if (is_first || group.ranks.size() <= most_rehearsed) {
                    const Rehearsal rehearsal = rehearse(run, device, StoragePlace::device);
                    found->second = {rehearsal.flops, sent_by(rehearsal.communication())};
                }
                flops += found->second.first;
                bytes += found->second.second;
            }
        }
        totals.flops += static_cast<double>(group.blocks.size()) * flops;
        totals.bytes_communicated += static_cast<double>(group.blocks.size()) * bytes;
    }
    if (options.block_groups == 1) return totals;
    const RehearsedRun run = dense_rank(model, options, topology);
    const Rehearsal dense = rehearse_dense_front(run, device, StoragePlace::device);
    const auto passed = static_cast<double>(dense_blocks(topology));
    const auto mine = static_cast<double>(topology.dense_samples_of(run.rank).size());
    totals.flops += passed * dense.flops * static_cast<double>(options.samples) / mine;
    totals.bytes_read += passed * read_block_bytes(model);
    const CommunicationCount& gathered =
        dense.phases.at("load").communication.counts[static_cast<std::size_t>(CommunicationVerb::all_gather)];
    totals.bytes_communicated += passed * static_cast<double>(gathered.bytes_sent + gathered.bytes_received);
    std::size_t travelling = 0;
    for (std::size_t g = 1; g < topology.groups().size(); ++g) {
        const BlockGroup& group = topology.groups()[g];
        for (std::size_t n = 0; n < options.samples; ++n) {
            if (topology.dense_holder_of(n) != group.ranks[topology.holder_of(group, n)]) ++travelling;
        }
    }
    totals.bytes_communicated +=
        static_cast<double>(travelling * options.sequence_length * model.config.hidden_size * sizeof(float));
    return totals;
}

std::optional<RunPlan> best_plan(const PlannedModel& model, const PruneOptions& options, const PlanChoice& choice,
                                 std::size_t ranks, const DeviceModel& device) {
    const bool optimises = options.method.optimises_regionally();
    // Most are slower than another that fits: their memory, with all its rehearsals, need not be known.
    std::vector<std::pair<double, PruneOptions>> candidates;
    for (const std::size_t groups : group_choices(model, choice, ranks)) {
        PruneOptions tried = options;
        tried.block_groups = groups;
        const std::size_t members = std::max<std::size_t>(1, ranks / groups);
        tried.shards = choice.shards.value_or(std::min(options.samples, std::max<std::size_t>(8, members)));
        // More samples a step than ranks only cost memory; fewer leave ranks idle.
        std::vector<std::size_t> batches = {1};
        for (std::size_t batch = 2; batch <= std::min(members, options.ro.samples); batch *= 2)
            batches.push_back(batch);
        if (choice.ro_batch || !optimises) batches = {choice.ro_batch.value_or(1)};
        for (const std::size_t batch : batches) {
            if (!choice.ro_batch && batch != 1 && 4 * batch < std::min(members, options.ro.samples)) continue;
            tried.ro.batch = batch;
            for (const StoragePlace place : {StoragePlace::device, StoragePlace::host}) {
                const RunPlan plan = plan_times(model, tried, ranks, device, place);
                if (std::max(plan.block.peak_bytes(), plan.dense.peak_bytes()) > device.tensor_bytes()) continue;
                candidates.emplace_back(plan.run_seconds, tried);
                break;
            }
        }
    }
    std::stable_sort(candidates.begin(), candidates.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    std::optional<RunPlan> best;
    for (const auto& [seconds, chosen] : candidates) {
        if (best && best->run_seconds <= seconds) break;
        try {
            RunPlan plan = plan_run(model, chosen, ranks, device);
            if (!best || plan.run_seconds < best->run_seconds) best = std::move(plan);
        } catch (const ResourceError&) {
            continue;  // does not fit
        }
    }
    return best;
}

}  // namespace espalier
