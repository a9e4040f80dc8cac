#include "src/cli/planned_device.h"

#include "src/base/error.h"
#include "src/base/units.h"
#include "src/cli/network_options.h"

namespace espalier {

std::vector<OptionSpec> planned_device_option_specs() {
    std::vector<OptionSpec> specs = {
        {"ranks", "number of GPUs, or of processes on CPUs", "1"},
        {"gpu",
         "kind of device to plan for: " +
             [] {
                 std::string names;
                 for (const std::string& name : device_model_names()) names += (names.empty() ? "" : ", ") + name;
                 return names;
             }(),
         "h100"},
        {"rates",
         "plan with the rates in this file, from `espalier doctor --rates FILE`, instead of those of --gpu",
         {}},
        {"gpu-memory", "memory of each GPU that tensors may take, for instance 16GiB [default: all but a reserve]", {}},
        {"threads", "with --gpu cpu: cores of each rank", "2"}};
    for (OptionSpec& spec : network_option_specs()) specs.push_back(std::move(spec));
    return specs;
}

namespace {

/// Arithmetic of `cores` cores; they share the memory.
DeviceModel with_cores(DeviceModel model, std::size_t cores) {
    const double factor = static_cast<double>(cores) / 2;
    for (ProductRates* const rates : {&model.sixteen_bit, &model.tf32, &model.float32}) {
        for (double* const rate :
             {&rates->linear, &rates->weight_gradient, &rates->attention, &rates->attention_backward}) {
            *rate *= factor;
        }
    }
    return model;
}

}  // namespace

DeviceModel choose_device_model(const OptionSet& set) {
    if (set.given_here("rates") && set.given_here("gpu")) throw InputError("give --gpu or --rates, not both");
    const bool measured = set.has("rates") && !set.given_here("gpu");
    DeviceModel model = measured ? read_device_model(set.text("rates")) : device_model(set.text("gpu"));
    if (!model.is_gpu && !measured) model = with_cores(std::move(model), set.whole("threads", 1));
    if (set.has("gpu-memory")) {
        if (!model.is_gpu) throw InputError("--gpu-memory is for GPUs; on a CPU a run takes what it needs");
        const std::size_t budget = parse_bytes(set.text("gpu-memory"), "gpu-memory");
        if (budget > model.memory_bytes) {
            throw InputError("--gpu-memory " + set.text("gpu-memory") + " is more than the " +
                             format_bytes(static_cast<double>(model.memory_bytes)) + " of " + model.name);
        }
        model.memory_bytes = budget;
        model.reserved_bytes = 0;
    }
    apply_network_options(set, model.network);
    return model;
}

}  // namespace espalier
