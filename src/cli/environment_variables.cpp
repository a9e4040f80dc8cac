#include "src/cli/environment_variables.h"

#include "src/cli/nearest_name.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>

namespace espalier {

namespace {

constexpr std::string_view prefix = "ESPALIER_";

/// Read by other than the options; tests/cli/test_process.py finds those that are missing here.
constexpr std::array<std::string_view, 23> other_variables = {
    // the program
    "ESPALIER_COMMUNICATION_DEADLINE",
    // batch scripts
    "ESPALIER_GOES_ON", "ESPALIER_LAUNCHER", "ESPALIER_NAMED_LINES", "ESPALIER_SLURM", "ESPALIER_SRUN_OPTIONS",
    // builds and tests
    "ESPALIER_ALL_RANKS", "ESPALIER_CPU_ARCHITECTURE", "ESPALIER_CUDA", "ESPALIER_CUDA_MODULE",
    "ESPALIER_EMULATED_GPUS", "ESPALIER_EMULATED_GPU_MEMORY", "ESPALIER_EMULATED_NCCL_FAULT",
    "ESPALIER_EMULATED_SHARED_MEMORY", "ESPALIER_EMULATION_ORDER", "ESPALIER_EMULATION_STREAMS", "ESPALIER_FUZZ_HDF5",
    "ESPALIER_SANITIZERS", "ESPALIER_SLURM_TESTS", "ESPALIER_TESTS", "ESPALIER_TEST_DEVICE", "ESPALIER_UNITY",
    "ESPALIER_WERROR"};

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
    std::vector<std::string> sentences, without_prefix;
    for (const std::string& name : known) without_prefix.push_back(name.substr(prefix.size()));
    for (const std::string& name : variables) {
        if (is_read(name)) continue;
        const std::string other = nearest_name(name.substr(prefix.size()), without_prefix);
        sentences.push_back(name + " is set, but nothing reads it" +
                            did_you_mean(other.empty() ? "" : std::string(prefix) + other));
    }
    return sentences;
}

}  // namespace espalier
