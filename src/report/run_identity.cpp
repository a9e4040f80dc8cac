#include "src/report/run_identity.h"

#include "src/base/error.h"
#include "src/report/event_log.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <random>
#include <set>

namespace espalier {

std::string new_run_id() {
    std::random_device entropy;
    return fmt::format("{}-{:08x}", utc_time(), entropy());
}

Json SessionFacts::provenance() const {
    std::array<char, 256> host{};
    gethostname(host.data(), host.size() - 1);
    return {{"command_line", command_line},
            {"options", options_with_origins},
            {"device", device},
            {"ranks", ranks},
            {"threads_per_rank", threads_per_rank},
            {"host", host.data()},
            {"saved", utc_time()}};
}

std::string differences(const Json& of_run, const Json& of_command) {
    std::string text;
    std::set<std::string> names;
    for (const auto& [name, value] : of_run.items()) names.insert(name);
    for (const auto& [name, value] : of_command.items()) names.insert(name);
    for (const std::string& name : names) {
        const Json before = of_run.contains(name) ? of_run[name] : Json();
        const Json now = of_command.contains(name) ? of_command[name] : Json();
        if (before == now) continue;
        const auto said = [](const Json& value) { return value.is_null() ? "does not use it" : "has " + value.dump(); };
        text +=
            fmt::format("{}{}: the run {}, this command {}", text.empty() ? "" : "; ", name, said(before), said(now));
    }
    return text;
}

void refuse_differences(const std::filesystem::path& output, const Json& of_run, const Json& of_command) {
    const std::string difference = differences(of_run, of_command);
    if (difference.empty()) return;
    throw InputError("--output " + output.string() + " holds a run with other options (" + difference +
                     "); repeat its command, choose another folder, or give --fresh to start over");
}

}  // namespace espalier
