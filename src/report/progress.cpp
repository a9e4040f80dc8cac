#include "src/report/progress.h"

#include "src/base/units.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <vector>

namespace espalier {

namespace {

std::string spaced(std::string phase) {
    std::replace(phase.begin(), phase.end(), '_', ' ');
    return phase;
}

/// Phases by falling time, those above 2 % of the whole.
std::string phase_text(const std::map<std::string, double>& seconds) {
    double total = 0;
    std::vector<std::pair<double, std::string>> order;
    for (const auto& [phase, time] : seconds) {
        total += time;
        order.emplace_back(time, phase);
    }
    std::sort(order.rbegin(), order.rend());
    std::string text;
    for (const auto& [time, phase] : order) {
        if (time < 0.02 * total) continue;
        text += fmt::format("{}{} {:.2f}", text.empty() ? "" : ", ", spaced(phase), time);
    }
    return text;
}

double sum_of(const std::map<std::string, double>& seconds) {
    double total = 0;
    for (const auto& phase : seconds) total += phase.second;
    return total;
}

}  // namespace

Progress::Progress(bool visible) : visible_(visible), terminal_(visible && isatty(STDERR_FILENO) != 0) {}

void Progress::clear_live() {
    if (live_shown_) std::fputs("\r\033[K", stderr);
    live_shown_ = false;
}

void Progress::line(const std::string& text) {
    if (!visible_) return;
    clear_live();
    std::fprintf(stderr, "%s\n", text.c_str());
    std::fflush(stderr);
}

void Progress::live(const std::string& text) {
    if (!terminal_) return;
    std::fprintf(stderr, "\r\033[K%s", text.c_str());
    std::fflush(stderr);
    live_shown_ = true;
}

void Progress::step(const std::string& text) {
    if (terminal_) return live(text);
    if (since_start_.seconds() - last_step_ < 10) return;
    last_step_ = since_start_.seconds();
    line(text);
}

void Progress::block(const Json& metrics, std::size_t done, std::size_t total, std::size_t to_prune) {
    const auto seconds = metrics.at("seconds").get<std::map<std::string, double>>();
    // The search of a learning rate is in one block only.
    if (seconds.contains("learning_rate_search")) searched_ += seconds.at("learning_rate_search");
    const bool pruned = metrics.at("pruned").get<bool>();
    if (pruned) ++pruned_;
    // Copied blocks take no time that would tell of the others.
    const double each = (since_start_.seconds() - searched_) / static_cast<double>(std::max<std::size_t>(1, pruned_));
    const std::string left =
        pruned_ == 0 && to_prune > 0 ? "not known yet" : format_seconds(each * static_cast<double>(to_prune));
    const double before = metrics.at("error_after_first_mask").get<double>();
    const bool optimised = metrics.contains("error_final_first_draw");
    const double after = metrics.at(optimised ? "error_final_first_draw" : "error_final").get<double>();
    const std::string error = !pruned     ? std::string("copied")
                              : optimised ? fmt::format("error {:.3e} -> {:.3e}", before, after)
                                          : fmt::format("error {:.3e}", after);
    line(fmt::format("block {:>3} ({}/{})  {:.2f} s ({})  {}  {}  ETA {}", metrics.at("index").get<std::size_t>(), done,
                     total, sum_of(seconds), phase_text(seconds), error,
                     format_bytes(metrics.at("peak_bytes").get<double>()), left));
    if (done < total) live(fmt::format("{}/{} blocks, time left: {}", done, total, left));
}

void Progress::summary(const Json& metrics) {
    std::map<std::string, double> phases;
    double worst = 0, sum = 0, flops = 0, unchanged = 0;
    std::size_t pruned = 0;
    for (const Json& block : metrics.at("blocks")) {
        for (const auto& [phase, time] : block.at("seconds").items()) phases[phase] += time.get<double>();
        flops += block.at("flops").get<double>();
        if (!block.at("pruned").get<bool>()) continue;
        ++pruned;
        const double error = block.at("error_final").get<double>();
        worst = std::max(worst, error);
        sum += error;
        unchanged += block.value("unchanged_weight_share", 0.0);
    }
    const double total = metrics.at("total_seconds").get<double>();
    line("");
    line(fmt::format("{} {} of {}: {} blocks in {}", metrics.at("method").get<std::string>(),
                     metrics.at("pattern").get<std::string>(), metrics.at("model").at("path").get<std::string>(),
                     pruned, format_seconds(total)));
    line(fmt::format("  output error   mean {:.3e}, worst block {:.3e}",
                     pruned == 0 ? 0 : sum / static_cast<double>(pruned), worst));
    if (pruned > 0 && unchanged / static_cast<double>(pruned) > 0.1) {
        line(
            fmt::format("  rounding       {:.0f} % of the optimised weights were rounded back to where they were "
                        "(--ro-learning-rate auto or "
                        "--output-dtype float32 keeps more)",
                        100 * unchanged / static_cast<double>(pruned)));
    }
    line(fmt::format("  arithmetic     {:.2f} TFLOP, {:.1f} GFLOP/s", flops / 1e12,
                     total > 0 ? flops / total / 1e9 : 0));
    line(fmt::format("  peak memory    {} resident on the largest rank",
                     format_bytes(metrics.at("peak_resident_bytes").get<double>())));
    line(fmt::format("  time by phase  {}", phase_text(phases)));
}

}  // namespace espalier
