#include "src/plan/scaling_study.h"

#include "src/base/units.h"
#include "src/plan/plan_text.h"

#include <fmt/format.h>

namespace espalier {

namespace {

std::vector<std::size_t> sizes_up_to(std::size_t most) {
    std::vector<std::size_t> sizes;
    for (std::size_t ranks = 1; ranks < most; ranks *= 2) sizes.push_back(ranks);
    sizes.push_back(most);
    return sizes;
}

/// The work of one rank for each of `ranks`.
PruneOptions grown(PruneOptions options, std::size_t ranks) {
    options.samples *= ranks;
    options.shards *= ranks;
    options.ro.samples *= ranks;
    options.ro.batch *= ranks;
    return options;
}

ScalingPoint compute(const DryRun& run, const PruneOptions& options, std::size_t ranks, Device& device) {
    const PlannedModel model{run.source.config(), run.source.layout(), run.source.storage()};
    RunPlan measured = plan_on_device(model, options, ranks, run.model, device, {run.source, run.ids});
    // Short ones are disturbed by whatever else the machine does: the fastest of a few.
    constexpr double is_short = 1.0;
    for (int again = 0; again < 4 && measured.block.seconds() < is_short; ++again) {
        RunPlan other = plan_on_device(model, options, ranks, run.model, device, {run.source, run.ids});
        if (other.block.seconds() < measured.block.seconds()) measured = std::move(other);
    }
    return {ranks, std::move(measured), plan_run(model, options, ranks, run.model)};
}

std::string table(const std::vector<ScalingPoint>& points, bool weak) {
    std::string text = fmt::format("{:>6}{:>14}{:>14}{:>12}{:>12}{:>14}{:>12}{:>10}\n", "ranks", "block", "run",
                                   weak ? "" : "speed-up", "efficiency", "plan: block", "run", "ratio");
    for (const ScalingPoint& point : points) {
        const double base = points.front().measured.run_seconds, seconds = point.measured.run_seconds;
        const double speed_up = base / seconds;
        text += fmt::format("{:>6}{:>14}{:>14}{:>12}{:>10.1f} %{:>14}{:>12}{:>10.2f}\n", point.ranks,
                            format_seconds(point.measured.block_seconds), format_seconds(seconds),
                            weak ? "" : fmt::format("{:.2f}", speed_up),
                            100 * (weak ? speed_up : speed_up / static_cast<double>(point.ranks)),
                            format_seconds(point.planned.block_seconds), format_seconds(point.planned.run_seconds),
                            point.planned.block_seconds / point.measured.block_seconds);
    }
    return text;
}

Json points_json(const std::vector<ScalingPoint>& points) {
    Json rows = Json::array();
    for (const ScalingPoint& point : points) {
        rows.push_back(
            {{"ranks", point.ranks}, {"dry_run", to_json(point.measured)}, {"plan", to_json(point.planned)}});
    }
    return rows;
}

}  // namespace

ScalingStudy study_scaling(const DryRun& run, Device& device, const std::function<void(const std::string&)>& announce) {
    ScalingStudy study;
    announce("warming up");
    static_cast<void>(compute(run, run.options, run.options.block_groups, device));
    for (const std::size_t ranks : sizes_up_to(run.most_ranks)) {
        announce(fmt::format("strong scaling: one of {} ranks", ranks));
        study.strong.push_back(compute(run, run.options, ranks, device));
    }
    for (const std::size_t ranks : sizes_up_to(run.most_ranks)) {
        announce(fmt::format("weak scaling: one of {} ranks", ranks));
        study.weak.push_back(compute(run, grown(run.options, ranks), ranks, device));
    }
    return study;
}

std::string describe(const ScalingStudy& study) {
    return "strong scaling: the same work on more ranks\n" + table(study.strong, false) +
           "\nweak scaling: samples, drawn samples and --ro-batch grow with the ranks\n" + table(study.weak, true) +
           "\nratio: a block as planned by a block of the dry run\n";
}

Json to_json(const ScalingStudy& study) {
    return {{"format", "espalier-dry-run"},
            {"version", 1},
            {"strong", points_json(study.strong)},
            {"weak", points_json(study.weak)}};
}

}  // namespace espalier
