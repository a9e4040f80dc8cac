#include "src/cli/environment_variables.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>

namespace espalier {

namespace {

constexpr std::string_view prefix = "ESPALIER_";

/// Read by other than the options; tests/cli/test_process.py finds those that are missing here.
constexpr std::array<std::string_view, 22> other_variables = {
    // the program
    "ESPALIER_COMMUNICATION_DEADLINE",
    // batch scripts
    "ESPALIER_GOES_ON", "ESPALIER_LAUNCHER", "ESPALIER_NAMED_LINES", "ESPALIER_SLURM", "ESPALIER_SRUN_OPTIONS",
    // builds and tests
    "ESPALIER_ALL_RANKS", "ESPALIER_CPU_ARCHITECTURE", "ESPALIER_CUDA", "ESPALIER_EMULATED_GPUS",
    "ESPALIER_EMULATED_GPU_MEMORY", "ESPALIER_EMULATED_NCCL_FAULT", "ESPALIER_EMULATED_SHARED_MEMORY",
    "ESPALIER_EMULATION_ORDER", "ESPALIER_EMULATION_STREAMS", "ESPALIER_FUZZ_HDF5", "ESPALIER_SANITIZERS",
    "ESPALIER_SLURM_TESTS", "ESPALIER_TESTS", "ESPALIER_TEST_DEVICE", "ESPALIER_UNITY", "ESPALIER_WERROR"};

/// Letters to insert, remove, replace, or swap with their neighbour.
std::size_t distance(std::string_view a, std::string_view b) {
    std::vector<std::vector<std::size_t>> cost(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
    for (std::size_t i = 0; i <= a.size(); ++i) {
        for (std::size_t j = 0; j <= b.size(); ++j) {
            if (i == 0 || j == 0) {
                cost[i][j] = i + j;
                continue;
            }
            const std::size_t replaced = cost[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
            cost[i][j] = std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1, replaced});
            const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swapped) cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
        }
    }
    return cost[a.size()][b.size()];
}

/// Empty when none comes near.
std::string nearest(const std::string& name, const std::vector<std::string>& known) {
    const std::size_t length = name.size() - prefix.size();
    std::size_t least = 1 + length / 4;  // letters that may be wrong
    std::string found;
    for (const std::string& candidate : known) {
        const std::size_t wrong = distance(name, candidate);
        if (wrong > least || (wrong == least && !found.empty())) continue;
        least = wrong;
        found = candidate;
    }
    return found;
}

}  // namespace

std::string variable_of_option(const std::string& option) {
    std::string name(prefix);
    for (const char c : option) {
        name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    }
    return name;
}

std::vector<std::string> own_variables() {
    std::vector<std::string> names;
    for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
        const std::string_view text(*entry);
        if (text.starts_with(prefix)) names.emplace_back(text.substr(0, text.find('=')));
    }
    std::sort(names.begin(), names.end());
    return names;
}

std::vector<std::string> unread_variables(const std::vector<std::string>& variables,
                                          const std::vector<OptionSpec>& options) {
    std::vector<std::string> known(other_variables.begin(), other_variables.end());
    for (const OptionSpec& option : options) known.push_back(variable_of_option(option.name));
    const auto is_read = [&](const std::string& name) {
        // OptionSet takes options in small letters and with dashes, too.
        const std::string as_option = variable_of_option(name.substr(prefix.size()));
        return std::find(known.begin(), known.end(), name) != known.end() ||
               std::any_of(options.begin(), options.end(),
                           [&](const OptionSpec& option) { return variable_of_option(option.name) == as_option; });
    };
    std::vector<std::string> sentences;
    for (const std::string& name : variables) {
        if (is_read(name)) continue;
        const std::string other = nearest(name, known);
        sentences.push_back(name + " is set, but nothing reads it" +
                            (other.empty() ? std::string() : "; did you mean " + other + "?"));
    }
    return sentences;
}

}  // namespace espalier
