#include "src/plan/run_plan.h"

#include "src/base/error.h"

#include <algorithm>

namespace espalier {

namespace {

/// Program, libraries, CUDA's host side (docs/performance.md: 200 MB resident with CUDA, about 60 without).
constexpr std::size_t process_bytes = std::size_t{300} << 20;

double sent_by(const CommunicationLedger& ledger) {
    double bytes = 0;
    for (const CommunicationCount& count : ledger.counts) bytes += static_cast<double>(count.bytes_sent);
    return bytes;
}

std::size_t written_block_bytes(const PlannedModel& model, const PruneOptions& options) {
    std::size_t bytes = model.layout.weights() * bytes_of(options.output_dtype) + model.layout.weights() / 8;
    for (const VectorShape& vector : model.layout.vectors()) bytes += 4 * vector.size;
    return bytes;
}

std::size_t host_bytes(const PlannedModel& model, const PruneOptions& options, const RunPlan& plan,
                       const DeviceModel& device) {
    const std::size_t read = model.storage.total_bytes(model.layout), written = written_block_bytes(model, options);
    const std::size_t being_written = device.is_gpu ? 3 : 1;
    std::size_t bytes = process_bytes + 2 * read + being_written * (written + model.layout.weights() + read);
    if (plan.block.memory.hidden_states == StoragePlace::host) {
        const std::size_t samples = (options.samples + plan.ranks_of_group - 1) / plan.ranks_of_group;
        bytes += samples * options.sequence_length * model.config.hidden_size * (sizeof(float) + 2);
    }
    return device.is_gpu ? bytes : bytes + plan.memory_bytes;
}

}  // namespace

std::size_t group_size(const PlannedModel& model, const PruneOptions& options, std::size_t ranks) {
    const Topology topology(ranks, model.config.blocks, options.block_groups, options.samples, options.shards);
    std::size_t smallest = ranks;
    for (const BlockGroup& group : topology.groups()) smallest = std::min(smallest, group.ranks.size());
    return smallest;
}

std::size_t busiest_rank(const PruneOptions& options, std::size_t members) {
    const Topology topology(members, 1, 1, options.samples, options.shards);
    std::size_t busiest = 0;
    for (std::size_t rank = 1; rank < members; ++rank) {
        const BlockGroup& group = topology.groups().front();
        if (topology.samples_of(group, rank).size() > topology.samples_of(group, busiest).size()) busiest = rank;
    }
    return busiest;
}

RunPlan plan_run(const PlannedModel& model, const PruneOptions& options, std::size_t ranks, const DeviceModel& device) {
    const std::size_t members = group_size(model, options, ranks);
    const std::size_t played = busiest_rank(options, members);
    return extrapolate(model, options, ranks, device,
                       rehearse({options, model.config, model.layout, model.storage, members, played, played}, device));
}

RunPlan extrapolate(const PlannedModel& model, const PruneOptions& options, std::size_t ranks,
                    const DeviceModel& device, Rehearsal block) {
    RunPlan plan;
    plan.ranks = ranks;
    plan.block_groups = options.block_groups;
    plan.shards = options.shards;
    plan.ro_batch = options.ro.batch;
    plan.ranks_of_group = group_size(model, options, ranks);
    const std::size_t most_blocks = (model.config.blocks + options.block_groups - 1) / options.block_groups;
    plan.block = std::move(block);
    plan.memory_bytes = plan.block.peak_bytes;
    plan.host_bytes = host_bytes(model, options, plan, device);

    const auto blocks = static_cast<double>(model.config.blocks);
    const double read = static_cast<double>(model.storage.total_bytes(model.layout));
    const auto written = static_cast<double>(written_block_bytes(model, options));
    // Owners take turns: while one block is computed, those before and after it are written and read.
    const double file_seconds = std::max(read, written) / device.file_bandwidth;
    const double of_files = file_seconds / static_cast<double>(plan.ranks_of_group);
    plan.bound_by_files = of_files > plan.block.seconds();
    plan.block_seconds = std::max(plan.block.seconds(), of_files);

    const auto groups = static_cast<double>(options.block_groups);
    // With fewer ranks than groups a rank works on its groups one after the other.
    const double turns = std::max(1.0, groups / static_cast<double>(std::min(ranks, options.block_groups)));
    const double of_group = static_cast<double>(most_blocks) * plan.block_seconds * turns;
    if (options.block_groups > 1) {
        const auto propagate = plan.block.phases.find("propagate");
        const double dense_block = propagate == plan.block.phases.end() ? 0 : propagate->second.seconds;
        plan.dense_seconds = (groups - 1) * static_cast<double>(most_blocks) * dense_block;
    }
    plan.run_seconds = plan.dense_seconds + of_group + 2 * file_seconds;  // the first is read, the last written alone
    plan.bytes_read = blocks * read;
    plan.bytes_written = blocks * written;
    const auto members = static_cast<double>(plan.ranks_of_group);
    plan.bytes_communicated = blocks * members * sent_by(plan.block.communication());
    plan.flops = blocks * members * plan.block.flops;
    return plan;
}

std::optional<RunPlan> best_plan(const PlannedModel& model, const PruneOptions& options, const PlanChoice& choice,
                                 std::size_t ranks, const DeviceModel& device) {
    const bool optimises = uses_regional_optimization(options.method);
    std::optional<RunPlan> best;
    for (std::size_t groups = 1; groups <= std::min(ranks, model.config.blocks); groups *= 2) {
        if (choice.block_groups && groups != 1) break;
        PruneOptions tried = options;
        tried.block_groups = choice.block_groups.value_or(groups);
        if (tried.block_groups > model.config.blocks) break;
        const std::size_t members = std::max<std::size_t>(1, ranks / tried.block_groups);
        tried.shards = choice.shards.value_or(std::min(options.samples, std::max<std::size_t>(8, members)));
        // More samples a step than ranks only cost memory; fewer leave ranks idle.
        std::vector<std::size_t> batches = {1};
        for (std::size_t batch = 2; batch <= std::min(members, options.ro.samples); batch *= 2)
            batches.push_back(batch);
        if (choice.ro_batch || !optimises) batches = {choice.ro_batch.value_or(1)};
        for (const std::size_t batch : batches) {
            if (!choice.ro_batch && batch != 1 && 4 * batch < std::min(members, options.ro.samples)) continue;
            tried.ro.batch = batch;
            try {
                RunPlan plan = plan_run(model, tried, ranks, device);
                if (!best || plan.run_seconds < best->run_seconds) best = std::move(plan);
            } catch (const ResourceError&) {
                continue;  // does not fit
            }
        }
    }
    return best;
}

}  // namespace espalier
