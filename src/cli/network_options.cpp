#include "src/cli/network_options.h"

#include "src/base/units.h"

namespace espalier {

std::vector<OptionSpec> network_option_specs() {
    return {
        {"gpus-per-node",
         "for plans and dry runs: GPUs (ranks) of one machine [default: as in --rates, else as is usual for the GPU]",
         {}},
        {"network-bandwidth",
         "for plans and dry runs: bytes a second that a rank sends, and as many that it receives, between machines, "
         "for "
         "instance 45GB [default: as in --rates, else as is usual for the GPU]",
         {}}};
}

void apply_network_options(const OptionSet& options, NetworkModel& network) {
    if (options.has("gpus-per-node")) network.ranks_per_machine = options.whole("gpus-per-node", 1);
    if (options.has("network-bandwidth")) {
        network.between.bandwidth =
            static_cast<double>(parse_bytes(options.text("network-bandwidth"), "network-bandwidth"));
    }
}

}  // namespace espalier
