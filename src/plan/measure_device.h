#pragma once
/// The rates of a DeviceModel, measured on this machine in a few seconds.

#include "kernels/device.h"
#include "src/model/model_config.h"
#include "src/plan/device_model.h"

#include <cstddef>
#include <filesystem>

namespace espalier {

/// Shapes that products and attention are measured with.
struct MeasuredShapes {
    std::size_t tokens = 0, hidden = 0, intermediate = 0;
    std::size_t query_heads = 0, key_value_heads = 0, head_size = 0;

    /// Those of a model, or of a well-known one where none is given: LLaMA-2-7B's on a GPU, smaller ones on a CPU.
    static MeasuredShapes of_model(const ModelConfig& config, std::size_t tokens);
    static MeasuredShapes usual(bool on_gpu);
};

/// Rates of `device`; multiplications of the types that it computes with. The network is that of `like`
/// (measure_network.h measures it); `origin`
/// says so. Files are measured by writing 128 MiB in `folder`, unless that is empty.
DeviceModel measure_device(Device& device, const DeviceModel& like, const MeasuredShapes& shapes,
                           const std::filesystem::path& folder = {});

}  // namespace espalier
