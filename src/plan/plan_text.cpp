#include "src/plan/plan_text.h"

#include "src/base/units.h"
#include "src/prune/block_report.h"

#include <fmt/format.h>

#include <algorithm>

namespace espalier {

namespace {

constexpr const char* order_of_phases[] = {"load",     "dense_pass", "statistics",    "mask",     "first_mask_error",
                                           "optimise", "propagate",  "rounding_loss", "hand_over"};

std::string readable(std::string phase) {
    std::replace(phase.begin(), phase.end(), '_', ' ');
    return phase;
}

double bytes_of(const CommunicationLedger& ledger) {
    double bytes = 0;
    for (const CommunicationCount& count : ledger.counts) {
        bytes += static_cast<double>(std::max(count.bytes_sent, count.bytes_received));
    }
    return bytes;
}

/// The largest of what a phase's time goes into.
std::string bound_of(double seconds, const DeviceSeconds& spent) {
    const double network = seconds - spent.products - spent.memory - spent.host_link;
    const std::pair<double, const char*> parts[] = {{spent.products, "matrix products"},
                                                    {spent.memory, "device memory"},
                                                    {spent.host_link, "host link"},
                                                    {network, "network"}};
    const auto* largest = std::max_element(std::begin(parts), std::end(parts));
    return seconds <= 0 ? "" : fmt::format("{} {:.0f} %", largest->second, 100 * largest->first / seconds);
}

DeviceSeconds spent_in(const Rehearsal& block, const std::string& phase) {
    const auto found = block.spent.find(phase);
    return found == block.spent.end() ? DeviceSeconds{} : found->second;
}

/// "25.3 TFLOP", "371 PFLOP".
std::string format_flops(double flops) {
    const char* unit = "";
    for (const char* const larger : {"k", "M", "G", "T", "P", "E"}) {
        if (flops < 1000) break;
        flops /= 1000;
        unit = larger;
    }
    return fmt::format("{:.3g} {}FLOP", flops, unit);
}

}  // namespace

std::string describe(const RunPlan& plan, const RunTotals& totals, const DeviceModel& device) {
    std::string text;
    const auto line = [&](const std::string& what, const std::string& found) {
        text += fmt::format("{:<22}{}\n", what, found);
    };
    line("ranks", fmt::format("{} in {} block group(s), {} shards, --ro-batch {}", plan.ranks, plan.block_groups,
                              plan.shards, plan.ro_batch));
    if (plan.ranks_without_samples > 0) {
        line("idle", fmt::format("{} of the {} ranks of a group hold no samples: more --shards would give them some",
                                 plan.ranks_without_samples, plan.ranks_of_group));
    }
    line("run", format_seconds(plan.run_seconds) + ", " +
                    format_device_time(plan.device_seconds(), device.is_gpu ? "GPU" : "rank"));
    line("  blocks", fmt::format("{}: {:.4g} one after the other, {} each",
                                 format_seconds(plan.blocks_in_a_row * plan.block_seconds), plan.blocks_in_a_row,
                                 format_seconds(plan.block_seconds)));
    if (plan.block_groups > 1) {
        line("  dense pass",
             format_seconds(plan.dense_seconds) + ": all ranks bring the samples to the later block groups");
    }
    line("  files alone", format_seconds(plan.file_seconds) + ": the first block is read, the last written");
    line("arithmetic", fmt::format("{}, {}/s a rank", format_flops(totals.flops),
                                   format_flops(totals.flops / plan.run_seconds / static_cast<double>(plan.ranks))));
    line("files",
         fmt::format("{} read, {} written{}", format_bytes(totals.bytes_read), format_bytes(totals.bytes_written),
                     plan.bound_by_files ? "; they are what the run waits for" : ""));
    line("network", fmt::format("{} sent by all ranks together", format_bytes(totals.bytes_communicated)));
    line("rates", device.name + ": " + device.origin);
    line("host memory", format_bytes(static_cast<double>(plan.host_bytes)) + " a rank");
    text += "\n" + describe(plan.memory, device);
    text += fmt::format("\n{:<20}{:>12}{:>8}  {:<24}{}\n", "phase of a block", "time", "share", "bound by",
                        "this rank communicates");
    for (const char* const phase : order_of_phases) {
        const auto found = plan.block.phases.find(phase);
        if (found == plan.block.phases.end()) continue;
        const double seconds = found->second.seconds, bytes = bytes_of(found->second.communication);
        text += fmt::format("{:<20}{:>12}{:>6.1f} %  {:<24}{}\n", readable(phase), format_seconds(seconds),
                            100 * seconds / plan.block.seconds(), bound_of(seconds, spent_in(plan.block, phase)),
                            bytes > 0 ? format_bytes(bytes) : "");
    }
    return text;
}

std::string describe(const PlanTable& table) {
    std::string text = fmt::format("{:>6}{:>8}{:>8}{:>10}{:>15}{:>10}{:>12}{:>13}{:>16}\n", "ranks", "groups", "shards",
                                   "ro-batch", "time", "speed-up", "efficiency", "memory", "device time");
    double base = 0;
    for (const auto& [ranks, plan] : table) {
        if (!plan) {
            text += fmt::format("{:>6}  does not fit into memory\n", ranks);
            continue;
        }
        if (base == 0) base = plan->run_seconds * static_cast<double>(ranks);
        const double speed_up = base / plan->run_seconds;
        text += fmt::format(
            "{:>6}{:>8}{:>8}{:>10}{:>15}{:>10.2f}{:>10.1f} %{:>13}{:>16}\n", ranks, plan->block_groups, plan->shards,
            plan->ro_batch, format_seconds(plan->run_seconds), speed_up, 100 * speed_up / static_cast<double>(ranks),
            format_bytes(static_cast<double>(plan->memory.total())), format_seconds(plan->device_seconds()));
    }
    return text + "Block groups and --ro-batch are the fastest that fit; both change the result (docs/cluster.md).\n";
}

Json to_json(const RunPlan& plan) {
    Json phases = Json::object();
    for (const auto& [phase, cost] : plan.block.phases) {
        const DeviceSeconds spent = spent_in(plan.block, phase);
        phases[phase] = {{"seconds", cost.seconds},
                         {"products", spent.products},
                         {"memory", spent.memory},
                         {"host_link", spent.host_link},
                         {"network", std::max(0.0, cost.seconds - spent.products - spent.memory - spent.host_link)},
                         {"communication", to_json(cost.communication)}};
    }
    Json json = to_json(plan.memory);
    json.update({{"ranks", plan.ranks},
                 {"block_groups", plan.block_groups},
                 {"shards", plan.shards},
                 {"ro_batch", plan.ro_batch},
                 {"ranks_of_group", plan.ranks_of_group},
                 {"run_seconds", plan.run_seconds},
                 {"block_seconds", plan.block_seconds},
                 {"blocks_in_a_row", plan.blocks_in_a_row},
                 {"dense_seconds", plan.dense_seconds},
                 {"file_seconds", plan.file_seconds},
                 {"device_hours", plan.device_hours()},
                 {"flops_of_block", plan.block.flops},
                 {"ranks_without_samples", plan.ranks_without_samples},
                 {"bound_by_files", plan.bound_by_files},
                 {"host_bytes", plan.host_bytes},
                 {"phases", phases}});
    return json;
}

Json to_json(const RunTotals& totals) {
    return {{"flops", totals.flops},
            {"bytes_read", totals.bytes_read},
            {"bytes_written", totals.bytes_written},
            {"bytes_communicated", totals.bytes_communicated}};
}

Json to_json(const PlanTable& table) {
    Json rows = Json::array();
    for (const auto& [ranks, plan] : table) {
        if (plan)
            rows.push_back(to_json(*plan));
        else
            rows.push_back({{"ranks", ranks}, {"fits", false}});
    }
    return rows;
}

}  // namespace espalier
