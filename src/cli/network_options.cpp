#include "src/cli/network_options.h"

#include "src/base/units.h"

namespace espalier {

std::vector<OptionSpec> network_options() {
    return {{"gpus-per-node", "ranks of one machine in a plan or dry run [default: of --rates or the device type]", {}},
            {"network-bandwidth",
             "bytes a second of a rank between machines, each way, in a plan or dry run (45GB) [default: of --rates or "
             "the type]",
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
